//===- ElaborateWindows.cpp - convolutions and pooling -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A convolution is an op of the dialect, and so is the transposed one. Pooling is a reduction over
// windows, which are a view. The number in a builtin's name is its number of spatial axes; shapes
// and settings are PyTorch's.
//
//===----------------------------------------------------------------------===//

#include "Elaborator.h"

using namespace dlc;
using namespace dlc::language;
using llvm::ArrayRef;
using llvm::dyn_cast;
using llvm::SMRange;
using llvm::StringRef;
using llvm::Twine;
using mlir::AffineConstantExpr;
using mlir::AffineExpr;
using std::optional;

using Values = llvm::SmallVector<Value *>;
using Numbers = llvm::SmallVector<int64_t>;

/// Spatial axes of a builtin: the digit in its name.
static int64_t spatialAxes(StringRef name) { return name[name.size() - 2] - '0'; }

/// Where an argument stands in the text.
static SMRange placeOf(const CallArguments &arguments, unsigned position, StringRef name) {
  if (position < arguments.places.size())
    return arguments.places[position];
  for (const auto &[given, value] : arguments.named)
    if (given.text == name)
      return given.range();
  return arguments.range;
}

/// A setting of windows, one whole number for each spatial axis: written as one or as a list.
static optional<Numbers> perAxis(ArrayRef<int64_t> numbers, int64_t spatial) {
  if (numbers.size() == 1)
    return Numbers(spatial, numbers[0]);
  if (static_cast<int64_t>(numbers.size()) == spatial)
    return Numbers(numbers);
  return std::nullopt;
}

optional<llvm::SmallVector<int64_t>>
Elaborator::windowSetting(const Value *value, StringRef setting, StringRef name, int64_t least,
                          ArrayRef<int64_t> otherwise, SMRange where) {
  int64_t spatial = spatialAxes(name);
  if (!value || value->isNone())
    return perAxis(otherwise, spatial);
  std::vector<Value> list{*value};
  if (auto *elements = value->elements())
    list = *elements;
  std::string what = ("'" + setting + "' of '" + name + "'").str();
  Numbers numbers;
  for (const Value &element : list) {
    optional<int64_t> n = wholeOf(element, what, where);
    if (!n)
      return std::nullopt;
    if (*n < least) {
      error(where, what + " must be at least " + Twine(least) + ", found " + Twine(*n));
      return std::nullopt;
    }
    if (*n > INT32_MAX) {
      error(where, what + " is " + Twine(*n) + ", which no tensor is long enough for");
      return std::nullopt;
    }
    numbers.push_back(*n);
  }
  optional<Numbers> each = perAxis(numbers, spatial);
  if (!each)
    error(where, what + " is a number or a list of " + Twine(spatial) + ", found a list of " +
                     Twine(numbers.size()));
  return each;
}

/// The images that windows move over: [N, C, …] with the builtin's spatial axes, floating point.
mlir::Value Elaborator::imagesOf(const Value &value, StringRef name, SMRange where) {
  mlir::Value x = toTensor(value, where, ("the argument of '" + name + "'").str());
  if (!x)
    return {};
  int64_t spatial = spatialAxes(name);
  if (!isFloat(dtypeOf(x)) || rankOf(x) != spatial + 2) {
    StringRef axes = spatial == 1 ? "[N, C, L]" : spatial == 2 ? "[N, C, H, W]" : "[N, C, D, H, W]";
    error(where, "'" + name + "' needs a floating-point tensor " + axes + ", found " +
                     describeType(x));
    return {};
  }
  return x;
}

/// How many windows fit along a spatial axis; null where none does, which is said with both sizes.
AffineExpr Elaborator::windowsAlong(AffineExpr size, int64_t kernel, int64_t stride,
                                    int64_t padding, int64_t dilation, StringRef name,
                                    SMRange where) {
  int64_t extent = dilation * (kernel - 1) + 1;
  AffineExpr padded = dl::normalizeSize(size + 2 * padding);
  std::string sizes = "the kernel of '" + name.str() + "' is " + std::to_string(kernel) +
                      (dilation == 1 ? "" : ", spread over " + std::to_string(extent)) +
                      ", the input " + dl::sizeToString(size, dimNames) +
                      (padding ? ", with padding " + dl::sizeToString(padded, dimNames) : "");
  if (auto known = dyn_cast<AffineConstantExpr>(padded)) {
    if (known.getValue() < extent) {
      error(where, sizes);
      return {};
    }
  } else {
    checkOnEntry(padded, "ge", constantSize(extent), sizes, where);
  }
  return dl::windowCount(size, kernel, stride, padding, dilation);
}

Value Elaborator::callConvolution(StringRef name, CallArguments &arguments) {
  bool isTransposed = name.starts_with("conv_transpose");
  llvm::SmallVector<StringRef> names{"x", "weight", "stride", "padding"};
  if (isTransposed)
    names.push_back("output_padding");
  names.append({"dilation", "groups"});
  Values values;
  if (!bindNames(arguments, "'" + name + "'", names, 2, values))
    return {};
  SMRange where = arguments.range;
  auto given = [&](StringRef setting) {
    return values[llvm::find(names, setting) - names.begin()];
  };
  auto at = [&](StringRef setting) {
    return placeOf(arguments, llvm::find(names, setting) - names.begin(), setting);
  };
  int64_t spatial = spatialAxes(name);
  mlir::Value x = imagesOf(*values[0], name, where);
  mlir::Value weight = toTensor(*values[1], where, ("the weight of '" + name + "'").str());
  auto strides = windowSetting(given("stride"), "stride", name, 1, {1}, at("stride"));
  auto paddings = windowSetting(given("padding"), "padding", name, 0, {0}, at("padding"));
  auto dilations = windowSetting(given("dilation"), "dilation", name, 1, {1}, at("dilation"));
  optional<Numbers> extras = Numbers(spatial, 0);
  if (isTransposed)
    extras = windowSetting(given("output_padding"), "output_padding", name, 0, {0},
                           at("output_padding"));
  optional<int64_t> groups = 1;
  if (const Value *value = given("groups"))
    groups = wholeOf(*value, "'groups' of '" + name.str() + "'", at("groups"));
  if (!x || !weight || !strides || !paddings || !dilations || !extras || !groups)
    return {};
  if (*groups < 1) {
    error(at("groups"), "'groups' of '" + name + "' must be at least 1, found " + Twine(*groups));
    return {};
  }

  // The weight is [out, in / groups, …], of the transposed convolution [in, out / groups, …]: the
  // convolution that it is the transposed of goes the other way.
  Shape images = shapeOf(x), kernel = shapeOf(weight);
  std::string types = "'" + name.str() + "' of " + describeType(x) + " by " + describeType(weight);
  if (rankOf(weight) != spatial + 2 || dtypeOf(weight) != dtypeOf(x)) {
    error(where, types + ": the weight must be a tensor of " + Twine(spatial + 2) +
                     " dimensions of the same type");
    return {};
  }
  Numbers extents;
  for (AffineExpr size : kernel) {
    auto known = dyn_cast<AffineConstantExpr>(size);
    if (!known || known.getValue() < 1) {
      error(where, types + ": the sizes of a weight must be known while compiling and at least 1");
      return {};
    }
    extents.push_back(known.getValue());
  }
  AffineExpr channels = images[1];
  if (extents[0] % *groups != 0) {
    error(at("groups"), types + ": " + Twine(extents[0]) + " channels of the weight do not divide into " +
                            Twine(*groups) + " groups");
    return {};
  }
  int64_t expected = isTransposed ? extents[0] : extents[1] * *groups;
  if (!equalSizes(channels, constantSize(expected), types, where)) {
    error(where, types + ": x has " + Twine(dl::sizeToString(channels, dimNames)) +
                     " channels, the weight is for " + Twine(expected) +
                     (*groups == 1 ? "" : " in " + std::to_string(*groups) + " groups"));
    return {};
  }
  images[1] = constantSize(expected);
  x = assumeShape(x, images, where);

  Shape result{images[0], constantSize(isTransposed ? extents[1] * *groups : extents[0])};
  for (int64_t axis = 0; axis < spatial; ++axis) {
    AffineExpr size = images[2 + axis];
    int64_t k = extents[2 + axis], stride = (*strides)[axis], padding = (*paddings)[axis],
            dilation = (*dilations)[axis], extra = (*extras)[axis];
    if (!isTransposed) {
      AffineExpr count = windowsAlong(size, k, stride, padding, dilation, name, where);
      if (!count)
        return {};
      result.push_back(count);
      continue;
    }
    if (extra >= std::max(stride, dilation)) {
      error(at("output_padding"), "'output_padding' of '" + name + "' is " + Twine(extra) +
                                      ", which must be less than the stride " + Twine(stride) +
                                      " or the dilation " + Twine(dilation));
      return {};
    }
    AffineExpr out = dl::normalizeSize((size - 1) * stride + (dilation * (k - 1) + 1 + extra - 2 * padding));
    auto known = dyn_cast<AffineConstantExpr>(out);
    std::string words = types + ": padding " + std::to_string(padding) + " leaves a size of " +
                        dl::sizeToString(out, dimNames);
    if (known ? known.getValue() < 1 : false) {
      error(at("padding"), words);
      return {};
    }
    if (!known)
      checkOnEntry(out, "ge", constantSize(1), words, where);
    result.push_back(out);
  }
  if (!checkElements(result, where))
    return {};
  mlir::Value y = dl::ConvolutionOp::create(
      builder(), locationOf(where), tensorType(result, dtypeOf(x)),
      isTransposed ? dl::ConvolutionResult::input : dl::ConvolutionResult::output, x, weight,
      *strides, *paddings, *dilations, *groups);
  return Value::tensor(y);
}

Value Elaborator::callPooling(StringRef name, CallArguments &arguments) {
  bool isMax = name.starts_with("max");
  llvm::SmallVector<StringRef> names{"x", "kernel", "stride", "padding"};
  names.push_back(isMax ? "dilation" : "count_include_pad");
  Values values;
  if (!bindNames(arguments, "'" + name + "'", names, 2, values))
    return {};
  SMRange where = arguments.range;
  auto at = [&](unsigned i) { return placeOf(arguments, i, names[i]); };
  mlir::Value x = imagesOf(*values[0], name, where);
  auto kernels = windowSetting(values[1], "kernel", name, 1, {1}, at(1));
  if (!x || !kernels)
    return {};
  auto strides = windowSetting(values[2], "stride", name, 1, *kernels, at(2));
  auto paddings = windowSetting(values[3], "padding", name, 0, {0}, at(3));
  auto dilations = windowSetting(isMax ? values[4] : nullptr, "dilation", name, 1, {1}, at(4));
  optional<bool> countsPadding = true;
  if (!isMax && values[4])
    countsPadding = boolOf(*values[4], "'count_include_pad'", at(4));
  if (!strides || !paddings || !dilations || !countsPadding)
    return {};

  // [N, C, kernel…, positions…], so that positions that are neighbours stay so.
  int64_t spatial = spatialAxes(name);
  Shape images = shapeOf(x), windows{images[0], images[1]}, positions;
  llvm::SmallVector<AffineExpr> places;
  llvm::SmallVector<int64_t> axes;
  for (int64_t axis = 0; axis < spatial; ++axis) {
    int64_t kernel = (*kernels)[axis], padding = (*paddings)[axis];
    // A window must not lie in the padding alone.
    if (2 * padding > kernel) {
      error(at(3), "'padding' of '" + name + "' is " + Twine(padding) +
                       ", more than half of the kernel " + Twine(kernel));
      return {};
    }
    AffineExpr count = windowsAlong(images[2 + axis], kernel, (*strides)[axis], padding,
                                    (*dilations)[axis], name, where);
    if (!count)
      return {};
    positions.push_back(count);
    windows.push_back(constantSize(kernel));
    axes.push_back(2 + axis);
    places.push_back(mlir::getAffineDimExpr(2 + spatial + axis, &context) * (*strides)[axis] +
                     mlir::getAffineDimExpr(2 + axis, &context) * (*dilations)[axis] - padding);
  }
  llvm::append_range(windows, positions);
  auto view = [&](mlir::Value of, double outside) -> mlir::Value {
    llvm::SmallVector<AffineExpr> map{mlir::getAffineDimExpr(0, &context),
                                      mlir::getAffineDimExpr(1, &context)};
    llvm::append_range(map, places);
    return dl::WindowOp::create(builder(), locationOf(where), tensorType(windows, dtypeOf(of)), of,
                                mlir::AffineMap::get(2 + 2 * spatial, 0, map, &context),
                                llvm::SmallVector<int64_t>(2 + spatial, 1), llvm::APFloat(outside));
  };
  if (isMax)
    return Value::tensor(
        reduce("max", view(x, -std::numeric_limits<double>::infinity()), axes, false, where));
  if (*countsPadding)
    return Value::tensor(meanOver(view(x, 0), axes, false, where));
  mlir::Value ones =
      fill(llvm::cast<mlir::RankedTensorType>(x.getType()), Number::whole(1), where);
  return Value::tensor(build("div",
                             {reduce("sum", view(x, 0), axes, false, where),
                              reduce("sum", view(ones, 0), axes, false, where)},
                             where));
}
