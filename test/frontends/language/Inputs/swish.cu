// swish(x) = x * sigmoid(x), element by element.
#pragma dlc launch(swish, threads = 128, elements = N)
template <typename T> __device__ void swish(const T *x, T *y, long long n) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i < n)
    y[i] = x[i] / (1 + exp(-x[i]));
}
