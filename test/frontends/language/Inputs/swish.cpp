// swish(x) = x * sigmoid(x), element by element.
#include <cmath>

#pragma dlc parallel(swish, N)
template <typename T> static void swish(const T *x, T *y, long long, long long begin, long long end) {
  for (long long i = begin; i < end; ++i)
    y[i] = x[i] / (1 + std::exp(-x[i]));
}
