#include "common.h"

__device__ int calls = 1; // ops.cu has names like these
__device__ __noinline__ int helper(int x) { return x + calls; }

// A block for each row; its sum in shared memory of which the pragma says how much.
#pragma dlc launch(rows, threads = 32, blocks = N, shared = 8 * 32)
template <typename T>
__device__ void rows(const T *x, const T *scale, const int *offset, const bool *on, T *sums, int *places, long long *all, long long n, long long d) {
  extern __shared__ double parts[];
  long long i = blockIdx.x;
  T own = 0;
  for (long long j = threadIdx.x; j < d; j += 32)
    own += x[i * d + j];
  parts[threadIdx.x] = own;
  __syncthreads();
  if (threadIdx.x != 0)
    return;
  T sum = 0;
  for (int t = 0; t < 32; ++t)
    sum += (T)parts[t];
  sums[i] = *on ? sum * *scale : 0;
  places[2 * i] = offset[i];
  places[2 * i + 1] = offset[i] + helper((int)i - 1);
  if (i == 0)
    *all = n * d;
}
