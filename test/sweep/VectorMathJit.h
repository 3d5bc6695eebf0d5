//===- VectorMathJit.h - runs the emitted functions on arrays -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Compiles every function of VectorMath for one type, number of lanes and CPU, with the stock
// conversions to LLVM, and makes the code callable. The unit test and dl-math-sweep share it, so
// the sweep measures what the tests test.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_SWEEP_VECTORMATHJIT_H
#define DLC_TEST_SWEEP_VECTORMATHJIT_H

#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace llvm::orc {
class LLJIT;
}

namespace dlc::vecmath {

struct JitOptions {
  bool isF64 = false;
  unsigned lanes = 16; // 0: scalars
  std::string cpu = "x86-64-v3";
  unsigned optLevel = 2;
  std::string only;       // one function; empty: all
  std::string objectFile; // where the machine code goes too, for a disassembler; empty: nowhere
};

/// Whether this machine runs code for x86-64-v3 or x86-64-v4.
bool hostRuns(llvm::StringRef cpu);

class Jit {
public:
  static llvm::Expected<Jit> compile(const JitOptions &options);
  Jit(Jit &&);
  ~Jit();

  /// out[i] = function(x[i]) or function(x[i], y[i]) for i < n, a multiple of the lanes.
  void run(llvm::StringRef function, const void *x, const void *y, void *out, int64_t n) const;

  /// What the code calls outside itself.
  const std::vector<std::string> &getUndefinedSymbols() const { return undefined; }

  /// Bytes of machine code: the function, its loop and the loading of its constants.
  uint64_t getCodeSize(llvm::StringRef function) const { return sizes.lookup(function); }

private:
  Jit();
  std::unique_ptr<llvm::orc::LLJIT> jit;
  llvm::StringMap<uint64_t> addresses, sizes;
  std::vector<std::string> undefined;
};

/// The distance of `got` from `want`, a number of higher precision, in units in the last place of
/// `want` as a T. Infinite if only one is NaN, or if a zero has the wrong sign.
template <typename T, typename Reference> double ulpError(T got, Reference want) {
  constexpr double kBroken = std::numeric_limits<double>::infinity();
  if (std::isnan(want) || std::isnan(got))
    return std::isnan(want) && std::isnan(got) ? 0 : kBroken;
  if (got == 0 && std::signbit(got) != std::signbit(want))
    return kBroken;
  if (std::isinf(want))
    return got == want ? 0 : kBroken;
  using Limits = std::numeric_limits<T>;
  Reference value = got;
  if (std::isinf(got)) {
    if (T(want) == got)
      return 0;
    // It counts as the first power of two that is too large.
    value = std::copysign(std::ldexp(Reference(1), Limits::max_exponent), value);
  }
  int exponent = Limits::min_exponent - 1;
  if (want != 0)
    exponent = std::max(exponent, std::ilogb(want));
  return double(std::fabs(value - want) / std::ldexp(Reference(1), exponent - Limits::digits + 1));
}

/// The function in f64 (for f32 results), or in long double (for f64 results).
template <typename Reference>
Reference referenceOf(llvm::StringRef function, Reference x, Reference y) {
  if (function == "exp")
    return std::exp(x);
  if (function == "expm1")
    return std::expm1(x);
  if (function == "log")
    return std::log(x);
  if (function == "log1p")
    return std::log1p(x);
  if (function == "tanh")
    return std::tanh(x);
  if (function == "erf")
    return std::erf(x);
  if (function == "sin")
    return std::sin(x);
  if (function == "cos")
    return std::cos(x);
  if (function == "sigmoid")
    return 1 / (1 + std::exp(-x));
  if (function == "softplus")
    return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  if (function == "sqrt")
    return std::sqrt(x);
  if (function == "rsqrt")
    return 1 / std::sqrt(x);
  if (function == "pow")
    return std::pow(x, y);
  llvm::report_fatal_error("no reference for the function '" + function + "'");
}

} // namespace dlc::vecmath

#endif // DLC_TEST_SWEEP_VECTORMATHJIT_H
