// Of both targets.
#ifdef __CUDACC__
#define ON_DEVICE __device__
#else
#include <cmath>
#define ON_DEVICE static
using std::exp;
#endif

template <typename T> ON_DEVICE T sigmoid(T x) { return 1 / (1 + exp(-x)); }
template <typename T> ON_DEVICE T swish_slope(T x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }
