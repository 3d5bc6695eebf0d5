// The focal loss on a CPU, the twin of focal.cu: rows are dealt out to the threads.

#include <cmath>

/// The largest score of a row, and the logarithm of the sum of exp(score - largest).
template <typename T> static void read_row(const T *scores, long long classes, T &largest, T &log_total) {
  largest = scores[0];
  for (long long j = 1; j < classes; ++j)
    largest = scores[j] > largest ? scores[j] : largest;
  T total = 0;
  for (long long j = 0; j < classes; ++j)
    total += std::exp(scores[j] - largest);
  log_total = std::log(total);
}

#pragma dlc parallel(focal, N)
template <typename T>
static void focal(const T *scores, const int *label, T *loss, long long, long long classes, long long begin, long long end) {
  for (long long row = begin; row < end; ++row) {
    const T *x = scores + row * classes;
    T largest, log_total;
    read_row(x, classes, largest, log_total);
    int hit = label[row];
    if (hit < 0 || hit >= classes) {
      loss[row] = 0;
      continue;
    }
    T log_p = x[hit] - largest - log_total, rest = 1 - std::exp(log_p);
    loss[row] = -rest * rest * log_p;
  }
}

#pragma dlc parallel(focal_backward, N)
template <typename T>
static void focal_backward(const T *scores, const int *label, const T *dy, T *dscores, long long, long long classes, long long begin,
                           long long end) {
  for (long long row = begin; row < end; ++row) {
    const T *x = scores + row * classes;
    T largest, log_total, by_log_p = 0;
    read_row(x, classes, largest, log_total);
    int hit = label[row];
    if (hit >= 0 && hit < classes) {
      T log_p = x[hit] - largest - log_total, p = std::exp(log_p), rest = 1 - p;
      by_log_p = dy[row] * rest * (2 * p * log_p - rest);
    }
    for (long long j = 0; j < classes; ++j)
      dscores[row * classes + j] = by_log_p * ((j == hit ? 1 : 0) - std::exp(x[j] - largest - log_total));
  }
}
