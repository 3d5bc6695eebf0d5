// The focal loss of custom_op.dl on a GPU: a warp of 32 threads computes a row.

/// The sum of a number over a warp, or the largest one, known to all its threads.
template <typename T> __device__ T warp_sum(T x) {
  for (int mask = 16; mask > 0; mask /= 2)
    x += __shfl_xor_sync(~0u, x, mask);
  return x;
}
template <typename T> __device__ T warp_max(T x) {
  for (int mask = 16; mask > 0; mask /= 2) {
    T other = __shfl_xor_sync(~0u, x, mask);
    x = other > x ? other : x;
  }
  return x;
}

/// The largest score of a row, and the logarithm of the sum of exp(score - largest).
template <typename T> __device__ void read_row(const T *scores, long long classes, T &largest, T &log_total) {
  largest = scores[0];
  for (long long j = threadIdx.x % 32; j < classes; j += 32)
    largest = scores[j] > largest ? scores[j] : largest;
  largest = warp_max(largest);
  T total = 0;
  for (long long j = threadIdx.x % 32; j < classes; j += 32)
    total += exp(scores[j] - largest);
  log_total = log(warp_sum(total));
}

#pragma dlc launch(focal, threads = 128, elements = 32 * N)
template <typename T> __device__ void focal(const T *scores, const int *label, T *loss, long long rows, long long classes) {
  long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
  if (row >= rows)
    return;
  scores += row * classes;
  T largest, log_total;
  read_row(scores, classes, largest, log_total);
  if (threadIdx.x % 32 != 0)
    return;
  int hit = label[row];
  if (hit < 0 || hit >= classes) {
    loss[row] = 0;
    return;
  }
  T log_p = scores[hit] - largest - log_total, rest = 1 - exp(log_p);
  loss[row] = -rest * rest * log_p;
}

#pragma dlc launch(focal_backward, threads = 128, elements = 32 * N)
template <typename T>
__device__ void focal_backward(const T *scores, const int *label, const T *dy, T *dscores, long long rows, long long classes) {
  long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
  if (row >= rows)
    return;
  scores += row * classes;
  dscores += row * classes;
  T largest, log_total, by_log_p = 0;
  read_row(scores, classes, largest, log_total);
  int hit = label[row];
  if (hit >= 0 && hit < classes) {
    T log_p = scores[hit] - largest - log_total, p = exp(log_p), rest = 1 - p;
    by_log_p = dy[row] * rest * (2 * p * log_p - rest);
  }
  for (long long j = threadIdx.x % 32; j < classes; j += 32)
    dscores[j] = by_log_p * ((j == hit ? 1 : 0) - exp(scores[j] - largest - log_total));
}
