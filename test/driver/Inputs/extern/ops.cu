#include "common.h"

__device__ int calls = 0; // rows.cu has names like these
__device__ __noinline__ int helper(int x) { return x + calls; }

#pragma dlc launch(swish, threads = 96)
template <typename T> __device__ void swish(const T *x, T *y, long long n) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i < n)
    y[i] = helper(1) * x[i] * sigmoid(x[i]);
}

#pragma dlc launch(swish_backward, threads = 64, elements = N)
template <typename T> __device__ void swish_backward(const T *x, const T *dy, T *dx, long long n) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i < n)
    dx[i] = dy[i] * swish_slope(x[i]);
}
