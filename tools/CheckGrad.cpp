//===- CheckGrad.cpp - derivatives against central differences -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// The program is compiled in f64 with one function more, `__grad_f`: f's first result and its
// derivative with respect to each trained variable. The library is loaded into this process and
// that function evaluated at x - h and x + h for single elements x of the variables. Between
// evaluations, states and random numbers are put back, so that every one sees the same.
//
// A derivative says nothing about a place where the function has a kink (relu at 0). There the
// slopes on both sides differ, and go on to differ when h shrinks; such elements are counted and
// left out. A wrong derivative of a smooth function is never taken for one, as its two slopes
// agree.
//
//===----------------------------------------------------------------------===//

#include "CheckGrad.h"
#include "compiler/emit/ModelDescription.h"
#include "dlrt/dlrt.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/raw_ostream.h"
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

using namespace llvm;

namespace dlc {

namespace {

constexpr StringLiteral gradientPrefix = "__grad_";

/// SplitMix64: the same numbers for the same seed, everywhere.
class Random {
public:
  explicit Random(uint64_t seed) : state(seed) {}
  uint64_t bits() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double normal() {
    double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  uint64_t below(uint64_t bound) { return bits() % bound; }

private:
  uint64_t state;
};

/// Reports a status and releases it; true where there was an error.
bool failed(dlrt_status status, const Twine &doing) {
  if (!status)
    return false;
  reportError((doing + ": " + dlrt_status_message(status)).str());
  dlrt_status_release(status);
  return true;
}

/// A tensor in memory of its own.
struct Tensor {
  dl_dtype dtype = DL_F64;
  std::vector<int64_t> dims;
  std::vector<char> bytes;

  int64_t size() const { return static_cast<int64_t>(bytes.size() / dtypeBytes(dtype)); }
  double *f64() { return reinterpret_cast<double *>(bytes.data()); }

  dlrt_tensor asArgument() {
    dlrt_tensor tensor = {};
    tensor.data = bytes.data();
    tensor.bytes = bytes.size();
    tensor.rank = dims.size();
    tensor.dtype = dtype;
    llvm::copy(dims, tensor.dims);
    return tensor;
  }
};

std::string indexText(int64_t index, ArrayRef<int64_t> dims) {
  SmallVector<int64_t> indices(dims.size());
  for (size_t k = dims.size(); k-- > 0;) {
    indices[k] = index % dims[k];
    index /= dims[k];
  }
  std::string text = "[";
  for (auto [k, i] : enumerate(indices))
    text += (k ? ", " : "") + std::to_string(i);
  return text + "]";
}

/// One function of one loaded model.
class Check {
public:
  Check(const CheckGradOptions &options, StringRef name, const ModelDescription &model)
      : options(options), name(name), description(model), random(options.seed + 1) {}
  ~Check() {
    dlrt_instance_release(instance);
    dlrt_model_release(model);
  }

  bool open(const std::string &path);
  bool run();

  unsigned checked = 0; // variables
  double worst = 0;

private:
  bool makeArguments(int64_t classes);
  /// The value with the variables as they are, and on request all derivatives.
  dlrt_status call(double &value, bool wantDerivatives);
  /// Sets one element and evaluates.
  bool at(uint32_t variable, int64_t element, double x, double &value);
  bool restoreStates();
  bool checkVariable(uint32_t variable, Tensor &analytic);

  const CheckGradOptions &options;
  std::string name;
  const ModelDescription &description;
  Random random;
  dlrt_model *model = nullptr;
  dlrt_instance *instance = nullptr;
  uint32_t function = 0;
  const FunctionDescription *signature = nullptr;
  std::vector<int64_t> dims;
  std::vector<Tensor> arguments;
  std::vector<Tensor> derivatives; // of results 1, 2, ...
  std::vector<Tensor> variables;   // values to put back
  bool restoresTrained = false;    // the function assigns trained variables too
};

bool Check::open(const std::string &path) {
  if (failed(dlrt_model_open(path.c_str(), &model), "cannot load the compiled program"))
    return false;
  dlrt_options instanceOptions = {};
  instanceOptions.size = sizeof(instanceOptions);
  instanceOptions.threads = 1;
  instanceOptions.seed = options.seed;
  if (failed(dlrt_instance_create(model, &instanceOptions, &instance), "cannot make an instance"))
    return false;
  std::string exported = (gradientPrefix + name).str();
  if (failed(dlrt_model_find_function(model, exported.c_str(), &function),
             "cannot check '" + name + "'"))
    return false;
  for (const FunctionDescription &candidate : description.functions)
    if (candidate.name == exported)
      signature = &candidate;
  for (size_t i = 0; i < description.dims.size(); ++i)
    dims.push_back(2 + static_cast<int64_t>(i)); // small, and no two alike
  for (const auto &[dim, size] : options.dims) {
    auto found = llvm::find(description.dims, dim);
    if (found == description.dims.end()) {
      reportError("--dim " + dim + ": the program leaves no such size to the call" +
                  (description.dims.empty() ? "" : "; it leaves " + join(description.dims, ", ")));
      return false;
    }
    dims[found - description.dims.begin()] = size;
  }
  for (const auto &[argument, bound] : options.ranges)
    if (none_of(signature->arguments, [&, argument = argument](const ValueDescription &value) {
          return value.name == argument;
        })) {
      reportError("--range " + argument + ": '" + name + "' has no such argument");
      return false;
    }
  return true;
}

/// Integers are taken from 0 to below \p classes unless --range says otherwise.
bool Check::makeArguments(int64_t classes) {
  random = Random(options.seed + 1);
  arguments.clear();
  for (const ValueDescription &value : signature->arguments) {
    Tensor &tensor = arguments.emplace_back();
    tensor.dtype = value.dtype;
    if (value.hasDefault)
      continue; // takes its default
    int64_t count = 1;
    for (const Size &dim : value.dims) {
      std::optional<int64_t> size = dim.evaluate(dims);
      if (!size || *size < 0 || *size > (int64_t(1) << 31) / std::max<int64_t>(1, count)) {
        reportError("argument '" + value.name + "' of '" + name +
                    "' has no usable size here; --dim sets sizes that are left to the call");
        return false;
      }
      tensor.dims.push_back(*size);
      count *= *size;
    }
    tensor.bytes.resize(count * dtypeBytes(value.dtype));
    int64_t bound = classes;
    for (const auto &[argument, range] : options.ranges)
      if (argument == value.name)
        bound = range;
    auto fill = [&](auto *data, auto make) {
      for (int64_t i = 0; i < count; ++i)
        data[i] = make();
    };
    char *data = tensor.bytes.data();
    switch (value.dtype) {
    case DL_BOOL:
      fill(reinterpret_cast<uint8_t *>(data), [&] { return random.bits() & 1; });
      break;
    case DL_U8:
      fill(reinterpret_cast<uint8_t *>(data),
           [&] { return random.below(std::min<int64_t>(bound, 256)); });
      break;
    case DL_I8:
      fill(reinterpret_cast<int8_t *>(data),
           [&] { return random.below(std::min<int64_t>(bound, 128)); });
      break;
    case DL_I16:
      fill(reinterpret_cast<int16_t *>(data),
           [&] { return random.below(std::min<int64_t>(bound, 32768)); });
      break;
    case DL_I32:
      fill(reinterpret_cast<int32_t *>(data),
           [&] { return random.below(std::min<int64_t>(bound, INT32_MAX)); });
      break;
    case DL_I64:
      fill(reinterpret_cast<int64_t *>(data), [&] { return random.below(bound); });
      break;
    case DL_F32:
      fill(reinterpret_cast<float *>(data), [&] { return random.normal(); });
      break;
    case DL_F64:
      fill(reinterpret_cast<double *>(data), [&] { return random.normal(); });
      break;
    default:
      reportError("argument '" + value.name + "' of '" + name + "' is " +
                  dtypeName(value.dtype).str() + "; check-grad feeds it no numbers of that type");
      return false;
    }
  }
  return true;
}

dlrt_status Check::call(double &value, bool wantDerivatives) {
  std::vector<dlrt_tensor> inputs, results(signature->results.size());
  for (auto [i, tensor] : enumerate(arguments)) {
    inputs.push_back(tensor.asArgument());
    if (signature->arguments[i].hasDefault)
      inputs.back().data = nullptr;
  }
  results[0].data = &value;
  results[0].bytes = sizeof(value);
  if (wantDerivatives)
    for (size_t i = 1; i < results.size(); ++i) {
      results[i].data = derivatives[i - 1].bytes.data();
      results[i].bytes = derivatives[i - 1].bytes.size();
    }
  return dlrt_call(instance, function, inputs.data(), inputs.size(), results.data(),
                   results.size());
}

bool Check::restoreStates() {
  for (auto [i, variable] : enumerate(variables))
    if (restoresTrained || description.variables[i].kind != DL_VARIABLE_TRAINED)
      if (failed(dlrt_variable_write(instance, i, variable.bytes.data(), variable.bytes.size()),
                 "cannot restore a variable"))
        return false;
  return true;
}

bool Check::at(uint32_t variable, int64_t element, double x, double &value) {
  Tensor &tensor = variables[variable];
  double old = std::exchange(tensor.f64()[element], x);
  bool ok =
      restoreStates() &&
      !failed(dlrt_variable_write(instance, variable, tensor.bytes.data(), tensor.bytes.size()),
              "cannot change a variable") &&
      !failed(call(value, false), "cannot call '" + name + "'");
  tensor.f64()[element] = old;
  return ok;
}

bool Check::run() {
  if (signature->results[0].dtype != DL_F64 || !signature->results[0].dims.empty()) {
    reportError("the first result of '" + name + "' is not one float");
    return false;
  }
  // Variables as the program starts with them, but no element at exactly 0: kinks are often there.
  for (auto [i, variable] : enumerate(description.variables)) {
    Tensor &tensor = variables.emplace_back();
    tensor.dtype = variable.dtype;
    tensor.dims = variable.dims;
    int64_t count = 1;
    for (int64_t dim : variable.dims)
      count *= dim;
    tensor.bytes.resize(count * dtypeBytes(variable.dtype));
    if (failed(dlrt_variable_read(instance, i, tensor.bytes.data(), tensor.bytes.size()),
               "cannot read variable '" + variable.name + "'"))
      return false;
    if (variable.kind != DL_VARIABLE_TRAINED || variable.dtype != DL_F64)
      continue;
    for (int64_t k = 0; k < count; ++k)
      if (tensor.f64()[k] == 0)
        tensor.f64()[k] = 0.1 * random.normal();
    if (failed(dlrt_variable_write(instance, i, tensor.bytes.data(), tensor.bytes.size()),
               "cannot write variable '" + variable.name + "'"))
      return false;
  }
  for (const ValueDescription &result : ArrayRef(signature->results).drop_front()) {
    Tensor &tensor = derivatives.emplace_back();
    tensor.dtype = result.dtype;
    int64_t count = 1;
    for (const Size &dim : result.dims) {
      tensor.dims.push_back(dim.asConstant().value_or(0)); // a variable's shape is static
      count *= tensor.dims.back();
    }
    tensor.bytes.resize(count * dtypeBytes(result.dtype));
  }

  // Labels have to be in their classes, whose number only the program knows: fewer and fewer until
  // it takes them.
  double value = 0;
  for (int64_t classes = 16;; classes /= 2) {
    if (!makeArguments(classes))
      return false;
    dlrt_status status = call(value, true);
    bool isRange = dlrt_status_code(status) == DLRT_FAULT && classes > 1;
    if (!isRange && failed(status, "cannot call '" + name + "'"))
      return false;
    if (!status)
      break;
    dlrt_status_release(status);
  }
  if (!std::isfinite(value)) {
    reportError("'" + name + "' is " + std::to_string(value) +
                " for random inputs; there is nothing to compare");
    return false;
  }
  for (auto [i, variable] : enumerate(description.variables)) {
    if (variable.kind != DL_VARIABLE_TRAINED)
      continue;
    std::vector<char> now(variables[i].bytes.size());
    if (failed(dlrt_variable_read(instance, i, now.data(), now.size()),
               "cannot read variable '" + variable.name + "'"))
      return false;
    restoresTrained |= now != variables[i].bytes;
  }

  outs() << name << "\n";
  bool ok = true;
  for (auto [k, result] : enumerate(ArrayRef(signature->results).drop_front())) {
    auto found =
        find_if(description.variables, [&, &result = result](const VariableDescription &variable) {
          return variable.name == result.name;
        });
    if (found == description.variables.end()) {
      reportError("internal compiler error: derivative '" + result.name +
                  "' belongs to no variable");
      return false;
    }
    ok &= checkVariable(found - description.variables.begin(), derivatives[k]);
  }
  return ok;
}

bool Check::checkVariable(uint32_t number, Tensor &analytic) {
  const VariableDescription &variable = description.variables[number];
  Tensor &values = variables[number];
  outs() << "  " << left_justify(variable.name, 28) << " ";
  if (variable.dtype != DL_F64) {
    outs() << dtypeName(variable.dtype) << ": not checked, differences need f64\n";
    return true;
  }
  int64_t size = values.size();
  if (analytic.dtype != DL_F64 || analytic.size() != size) {
    outs() << "\n";
    reportError("internal compiler error: the derivative of '" + variable.name +
                "' has another type or shape than the variable");
    return false;
  }
  ++checked;

  // All elements, or some in a random order without repetition; more than needed, as some may turn
  // out to be at a kink.
  int64_t wanted = options.samples == 0 ? size : std::min<int64_t>(options.samples, size);
  std::vector<int64_t> order;
  if (wanted == size) {
    order.resize(size);
    std::iota(order.begin(), order.end(), 0);
  } else {
    DenseSet<int64_t> seen;
    while (static_cast<int64_t>(order.size()) < std::min<int64_t>(2 * wanted, size)) {
      int64_t element = random.below(size);
      if (seen.insert(element).second)
        order.push_back(element);
    }
  }

  constexpr double epsilon = std::numeric_limits<double>::epsilon();
  double largest = 0;
  for (int64_t i = 0; i < size; ++i)
    largest = std::max(largest, std::fabs(analytic.f64()[i]));

  struct {
    double error = -1, difference = -1, analytic = 0, numeric = 0; // difference: rounding included
    int64_t element = 0;
  } most;
  int64_t done = 0, kinks = 0;
  double center = 0;
  if (!at(number, 0, values.f64()[0], center))
    return false;
  for (int64_t element : order) {
    if (done == wanted)
      break;
    double x = values.f64()[element], expected = analytic.f64()[element];
    double error = 0, difference = 0, numeric = 0, jumpBefore = 0;
    bool isKink = false;
    double step = std::cbrt(epsilon) * std::max(1.0, std::fabs(x));
    for (unsigned attempt = 0; attempt < 2; ++attempt, step /= 16) {
      volatile double above = x + step,
                      below = x - step; // as they are stored: the step that is really taken
      double high = 0, low = 0;
      if (!at(number, element, above, high) || !at(number, element, below, low))
        return false;
      numeric = (high - low) / (above - below);
      double jump = std::fabs((high - center) / (above - x) - (center - low) / (x - below));
      // What rounding alone can make of the difference.
      double noise =
          4 * epsilon * std::max({std::fabs(high), std::fabs(low), std::fabs(center)}) / step;
      double scale = std::max({std::fabs(expected), std::fabs(numeric), 1e-3 * largest,
                               std::numeric_limits<double>::min()});
      difference = std::fabs(expected - numeric) / scale;
      error = std::max(0.0, std::fabs(expected - numeric) - noise) / scale;
      if (!std::isfinite(expected) || !std::isfinite(numeric))
        error = difference = std::numeric_limits<double>::infinity();
      if (error <= options.tolerance)
        break;
      if (attempt == 1)
        isKink = std::isfinite(expected) && jump > 0.25 * jumpBefore &&
                 jump > options.tolerance * scale + 4 * noise;
      jumpBefore = jump;
    }
    if (isKink) {
      ++kinks;
      continue;
    }
    ++done;
    if (std::pair(error, difference) > std::pair(most.error, most.difference))
      most = {error, difference, expected, numeric, element};
  }
  // The variable itself has to be as before for the next one.
  if (failed(dlrt_variable_write(instance, number, values.bytes.data(), values.bytes.size()),
             "cannot restore a variable"))
    return false;

  outs() << done << " of " << size;
  if (kinks)
    outs() << " (" << kinks << " more at kinks)";
  if (done == 0) {
    bool empty = size == 0;
    outs() << (empty ? ", nothing to check\n" : ": nothing could be checked FAILED\n");
    return empty;
  }
  bool ok = most.error <= options.tolerance;
  worst = std::max(worst, ok ? std::min(most.difference, options.tolerance) : most.difference);
  outs() << ", worst " << (variable.dims.empty() ? "" : indexText(most.element, variable.dims))
         << ": analytic " << format("%.9e", most.analytic) << ", numeric "
         << format("%.9e", most.numeric) << ", relative error " << format("%.1e", most.difference)
         << (!ok                                   ? " FAILED"
             : most.difference > options.tolerance ? " (rounding of the value alone can do that)"
                                                   : "")
         << "\n";
  outs().flush();
  return ok;
}

} // namespace

bool checkGrad(const CheckGradOptions &options) {
  CompileOptions compileOptions = options.compile;
  compileOptions.f64 = true;

  std::vector<std::string> names = options.functions;
  bool chosen = !names.empty();
  if (!chosen) {
    CompileResult plain = compile(compileOptions, {});
    if (!plain.ok)
      return false;
    for (const FunctionDescription &function : plain.model->functions)
      if (!(function.flags & (DL_FUNCTION_INIT | DL_FUNCTION_TRAIN)) && !function.results.empty() &&
          function.results[0].dtype == DL_F64 && function.results[0].dims.empty())
        names.push_back(function.name);
    if (names.empty()) {
      reportError(
          "'" + compileOptions.input +
          "' exports no function whose first result is one float; name the function to check");
      return false;
    }
  }

  bool ok = true;
  unsigned checked = 0;
  double worst = 0;
  for (const std::string &name : names) {
    SmallString<128> path;
    if (std::error_code code = sys::fs::createTemporaryFile("dlc-check-grad", "so", path)) {
      reportError("cannot make a temporary file: " + code.message());
      return false;
    }
    scope_exit remove([&] { sys::fs::remove(path); });
    compileOptions.checkGradOf = name;
    CompileResult result = compile(compileOptions, {{Stage::Library, path.str().str()}});
    if (!result.ok)
      return false;
    std::string exported = (gradientPrefix + name).str();
    auto function = find_if(result.model->functions, [&](const FunctionDescription &candidate) {
      return candidate.name == exported;
    });
    if (function == result.model->functions.end() || function->results.size() < 2) {
      outs() << name << ": depends on no trained variable\n";
      ok &= !chosen;
      continue;
    }
    Check check(options, name, *result.model);
    if (!check.open(path.str().str()))
      return false;
    ok &= check.run();
    checked += check.checked;
    worst = std::max(worst, check.worst);
  }
  if (checked == 0) {
    reportError("nothing could be checked in '" + compileOptions.input + "'");
    return false;
  }
  outs() << "check-grad: " << checked << (checked == 1 ? " variable" : " variables")
         << ", worst relative error " << format("%.1e", worst) << ", tolerance "
         << format("%.1e", options.tolerance) << ": " << (ok ? "passed" : "FAILED") << "\n";
  return ok;
}

} // namespace dlc
