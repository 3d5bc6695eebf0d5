//===- Peaks.cpp - what the processor can do at most -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Peaks.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dlc::run {

namespace {

using Clock = std::chrono::steady_clock;

/// Independent chains of multiply-adds: more than any processor has under way at once, and as many
/// as there are registers for.
constexpr int chains = 12;

// One loop for each width and type: `turns` turns of `chains` multiply-adds, which the compiler
// must not do ahead.
#define DLC_MULTIPLY_ADDS(name, features, vector, set, fma)                                        \
  __attribute__((target(features))) void name(int64_t turns) {                                     \
    vector x[chains], factor = set(0.999999f), step = set(1e-7f);                                  \
    for (vector &value : x)                                                                        \
      value = set(1.0f);                                                                           \
    for (int64_t i = 0; i < turns; ++i) {                                                          \
      for (vector &value : x)                                                                      \
        value = fma(value, factor, step);                                                          \
      asm volatile(""                                                                              \
                   : "+v"(x[0]), "+v"(x[1]), "+v"(x[2]), "+v"(x[3]), "+v"(x[4]), "+v"(x[5]),       \
                     "+v"(x[6]), "+v"(x[7]), "+v"(x[8]), "+v"(x[9]), "+v"(x[10]), "+v"(x[11]));    \
    }                                                                                              \
  }

/// How the processor multiplies and adds, and how many numbers at once.
struct Arithmetic {
  void (*f32)(int64_t);
  void (*f64)(int64_t);
  int64_t bytes; // of a vector
};

/// Memory in whole lines: `count` of them. Reading adds words up, so that it happens; writing is
/// a[i] = b[i] + c[i].
struct Movement {
  uint64_t (*read)(const uint64_t *from, size_t words);
  void (*add)(uint64_t *to, const uint64_t *a, const uint64_t *b, size_t words);
};

#if defined(__x86_64__)
DLC_MULTIPLY_ADDS(f32Avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps)
DLC_MULTIPLY_ADDS(f64Avx512, "avx512f", __m512d, _mm512_set1_pd, _mm512_fmadd_pd)
DLC_MULTIPLY_ADDS(f32Avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps)
DLC_MULTIPLY_ADDS(f64Avx2, "avx2,fma", __m256d, _mm256_set1_pd, _mm256_fmadd_pd)

__attribute__((target("avx2"))) uint64_t readAvx2(const uint64_t *from, size_t words) {
  __m256i sums[4] = {};
  for (size_t i = 0; i < words; i += 16)
    for (size_t k = 0; k < 4; ++k) {
      const auto *at = reinterpret_cast<const __m256i *>(from + i + 4 * k);
      sums[k] = _mm256_add_epi64(sums[k], _mm256_loadu_si256(at));
    }
  for (size_t k = 1; k < 4; ++k)
    sums[0] = _mm256_add_epi64(sums[0], sums[k]);
  return static_cast<uint64_t>(_mm256_extract_epi64(sums[0], 0));
}

__attribute__((target("avx2"))) void addAvx2(uint64_t *to, const uint64_t *a, const uint64_t *b,
                                             size_t words) {
  for (size_t i = 0; i < words; i += 4) {
    __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(a + i));
    __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(b + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + i), _mm256_add_epi64(x, y));
  }
}
#endif

template <typename T> void multiplyAdds(int64_t turns) {
  T x[chains];
  std::fill_n(x, chains, T(1));
  volatile T factor = T(0.999999), step = T(1e-7);
  T by = factor, more = step;
  for (int64_t i = 0; i < turns; ++i)
    for (T &value : x)
      value = std::fma(value, by, more);
  for (T value : x)
    step = value;
}

uint64_t readWords(const uint64_t *from, size_t words) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i < words; i += 8)
    for (size_t k = 0; k < 8; ++k)
      sums[k] += from[i + k];
  return sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
}

void addWords(uint64_t *to, const uint64_t *a, const uint64_t *b, size_t words) {
  for (size_t i = 0; i < words; ++i)
    to[i] = a[i] + b[i];
}

Arithmetic arithmetic() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f"))
    return {f32Avx512, f64Avx512, 64};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {f32Avx2, f64Avx2, 32};
#endif
  return {multiplyAdds<float>, multiplyAdds<double>, 0};
}

Movement movement() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2"))
    return {readAvx2, addAvx2};
#endif
  return {readWords, addWords};
}

/// Seconds until all threads have done `work`, the best of some tries. They begin together.
double best(uint32_t threads, const std::function<void(uint32_t)> &work) {
  constexpr int tries = 5;
  std::vector<Clock::time_point> moments;
  std::barrier together(threads, [&]() noexcept { moments.push_back(Clock::now()); });
  moments.reserve(tries + 1);
  auto run = [&](uint32_t thread) {
    for (int i = 0; i < tries; ++i) {
      together.arrive_and_wait();
      work(thread);
    }
    together.arrive_and_wait();
  };
  std::vector<std::thread> others;
  for (uint32_t thread = 1; thread < threads; ++thread)
    others.emplace_back(run, thread);
  run(0);
  for (std::thread &other : others)
    other.join();
  double seconds = INFINITY;
  for (size_t i = 1; i < moments.size(); ++i)
    seconds = std::min(seconds, std::chrono::duration<double>(moments[i] - moments[i - 1]).count());
  return seconds;
}

double measureArithmetic(uint32_t threads, void (*run)(int64_t), int64_t lanes) {
  constexpr int64_t turns = 500'000;
  double seconds = best(threads, [&](uint32_t) { run(turns); });
  return 2e-9 * static_cast<double>(turns * chains * lanes) * threads / seconds;
}

double measureBytes(uint32_t threads, uint64_t bytes) {
  constexpr uint64_t fewest = 3 << 14, most = UINT64_C(1) << 29,
                     line = 16; // a thread's; words of a step
  uint64_t own = std::clamp(bytes / threads, fewest, most) / 8 / 3 / line * line;
  // Each thread's memory is touched first by itself.
  std::vector<std::unique_ptr<uint64_t[]>> memory(threads);
  auto words = [&](uint32_t thread, int part) {
    return memory[thread].get() + static_cast<uint64_t>(part) * own;
  };
  // About 4 MB at least, so that the clock's grain does not count.
  auto turns = static_cast<int64_t>(std::max<uint64_t>(1, (4 << 20) / (24 * own)));
  Movement move = movement();
  std::vector<uint64_t> sums(threads * 8);
  best(1, [&](uint32_t) {
    for (uint32_t thread = 0; thread < threads; ++thread)
      if (!memory[thread])
        memory[thread].reset(new uint64_t[3 * own]);
  });
  best(threads, [&](uint32_t thread) { std::fill_n(words(thread, 0), 3 * own, thread); });
  double reading = best(threads, [&](uint32_t thread) {
    for (int64_t i = 0; i < turns; ++i)
      sums[thread * 8] += move.read(words(thread, 0), 3 * own);
  });
  double both = best(threads, [&](uint32_t thread) {
    for (int64_t i = 0; i < turns; ++i)
      move.add(words(thread, 0), words(thread, 1), words(thread, 2), own);
  });
  volatile uint64_t kept = sums[0];
  (void)kept;
  return 1e-9 * static_cast<double>(24 * own) * static_cast<double>(turns) * threads /
         std::min(reading, both);
}

} // namespace

Peaks measurePeaks(uint32_t threads, uint64_t bytes) {
  Arithmetic compute = arithmetic();
  auto lanes = [&](int64_t size) { return std::max<int64_t>(1, compute.bytes / size); };
  return {measureArithmetic(threads, compute.f32, lanes(4)),
          measureArithmetic(threads, compute.f64, lanes(8)), measureBytes(threads, bytes)};
}

} // namespace dlc::run
