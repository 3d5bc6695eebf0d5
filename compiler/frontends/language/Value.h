//===- Value.h - what an expression means while it is elaborated -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_FRONTENDS_LANGUAGE_VALUE_H
#define DLC_COMPILER_FRONTENDS_LANGUAGE_VALUE_H

#include "Ast.h"
#include "Number.h"
#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/StringMap.h"
#include <memory>
#include <variant>

namespace dlc::language {

enum class DType : uint8_t { Bool, U8, I8, I16, I32, I64, F16, BF16, F32, F64 };
llvm::StringRef nameOf(DType dtype);
std::optional<DType> dtypeNamed(llvm::StringRef name);
inline bool isFloat(DType dtype) { return dtype >= DType::F16; }
inline bool isInteger(DType dtype) { return dtype >= DType::U8 && dtype <= DType::I64; }

/// Sizes of a tensor: normalized affine expressions over the model's dynamic dimensions.
using Shape = llvm::SmallVector<mlir::AffineExpr, 4>;

struct ExternFunction;
struct FileScope;
struct Layer;
struct LayerForm;
struct Checkpointed;
struct Optimizer;
struct TrainStep;
class Value;

/// An error was reported: whatever is computed from it is an error without another report.
struct Poison {};
struct NoneValue {};
/// A truth value of compile time.
struct BoolValue {
  bool value;
  uint64_t settings = 0; // as in Number
};
/// A tensor in the function under construction.
struct TensorValue {
  mlir::Value value;
};
struct StringValue {
  llvm::StringRef text;
};
struct ListValue {
  std::shared_ptr<const std::vector<Value>> elements;
};
struct RangeValue {
  Number first, last;
};
/// A function, of a layer or of a file (then without an owner).
struct FunctionValue {
  const ast::FnDecl *decl;
  FileScope *file;
  Layer *owner;
};
/// A function of the user's own in C++.
struct ExternValue {
  ExternFunction *function;
};
struct BuiltinValue {
  llvm::StringRef name;
};
/// A layer that is still to be made by a call with its settings.
struct LayerMaker {
  const ast::LayerDecl *decl;
  FileScope *file;
};
struct OptimizerMaker {
  const ast::OptimizerDecl *decl;
  FileScope *file;
};
/// An imported file: its names are reached with a dot. Without a file: the builtins, `dl`.
struct ModuleValue {
  FileScope *file;
};
/// A constant tensor, `array([…])` or `load("…")`, that is not yet part of a function.
struct ArrayValue {
  DType dtype;
  std::vector<int64_t> shape;
  std::vector<char> bytes; // row-major elements as they lie in memory; a bool is one byte
};
/// A constant whose value is computed by tensor operations: evaluated again in each function that
/// uses it.
struct DeferredValue {
  const ast::Expr *expr;
  FileScope *file;
  Layer *owner;
};

class Value {
public:
  using Data = std::variant<Poison, NoneValue, BoolValue, Number, TensorValue, StringValue, DType,
                            ListValue, RangeValue, FunctionValue, ExternValue, BuiltinValue, LayerMaker, Layer *,
                            std::shared_ptr<LayerForm>, std::shared_ptr<Checkpointed>,
                            OptimizerMaker, Optimizer *, TrainStep *, ModuleValue,
                            std::shared_ptr<ArrayValue>, DeferredValue>;

  Value() = default; // poison
  template <typename T>
    requires std::is_constructible_v<Data, T>
  Value(T data) : data(std::move(data)) {}
  static Value none() { return NoneValue(); }
  static Value boolean(bool value, uint64_t settings = 0) { return BoolValue{value, settings}; }
  static Value tensor(mlir::Value value) { return TensorValue{value}; }
  static Value list(std::vector<Value> elements) {
    return ListValue{std::make_shared<const std::vector<Value>>(std::move(elements))};
  }

  template <typename T> const T *as() const { return std::get_if<T>(&data); }
  template <typename T> bool is() const { return std::holds_alternative<T>(data); }
  bool isPoison() const { return is<Poison>(); }
  bool isNone() const { return is<NoneValue>(); }
  const Number *number() const { return as<Number>(); }
  mlir::Value asTensor() const {
    return is<TensorValue>() ? as<TensorValue>()->value : mlir::Value();
  }
  Layer *layer() const { return is<Layer *>() ? *as<Layer *>() : nullptr; }
  const std::vector<Value> *elements() const {
    return is<ListValue>() ? as<ListValue>()->elements.get() : nullptr;
  }
  LayerForm *form() const {
    return is<std::shared_ptr<LayerForm>>() ? as<std::shared_ptr<LayerForm>>()->get() : nullptr;
  }

private:
  Data data;
};

/// A variable of a layer, or the state of an optimizer.
struct Variable {
  enum class Kind : uint8_t {
    Trained,
    State,
    Slot,
    Random,
    Printed // of one call: messages so far, 0 at entry
  };
  Kind kind = Kind::State;
  std::string path;    // set when the model that holds it is complete
  bool placed = false; // it has a path in the model
  DType dtype = DType::F32;
  Shape shape; // constants
  ast::Name name;
  llvm::StringRef doc;
  // The initial value: an expression in the scope of a layer, or a value.
  const ast::Expr *initial = nullptr;
  Layer *owner = nullptr;
  Value initialValue;
  Variable *copyOf = nullptr; // begins with the initial value of this one
  // Of the state of an optimizer, which then has no owner; and the variable whose `each` it is.
  Optimizer *optimizer = nullptr;
  Variable *each = nullptr;
};

/// What a name declares in a layer.
struct Member {
  enum class Kind : uint8_t { Variable, Value, Function, Train };
  Kind kind;
  llvm::SMRange where; // of the name
  Variable *variable = nullptr;
  Value value; // a part, a constant, a function or a train step
};

/// A layer or model with its own variables and parts.
struct Layer {
  const ast::LayerDecl *decl;
  FileScope *file;
  llvm::SMRange madeAt;
  std::string path;
  bool placed = false;
  bool frozen = false; // declared with `state`: not trained, evaluation mode
  llvm::MapVector<llvm::StringRef, Value> params;
  llvm::MapVector<llvm::StringRef, Member> members;
  llvm::StringRef name() const { return decl->name.text; }
};

/// Values in the form of a layer: a local layer, or what `grad` with respect to one gives.
struct LayerForm {
  using Values = llvm::DenseMap<Variable *, mlir::Value>;
  Value form;                     // a layer, or a list of layers and functions
  std::shared_ptr<Values> values; // of its variables; parts share the map of the whole
  bool isDerivative = false;      // then variables that nothing depends on are left out
  std::shared_ptr<Values> copied; // of what it was at some time: the map that goes on changing
};

/// `checkpoint(f)`: what is called is computed again in the backward pass.
struct Checkpointed {
  Value callee;
};

/// A file of C++ that extern functions are in.
struct ExternFile {
  std::string path;
  llvm::StringRef written; // in the program
  llvm::StringMap<const ast::CallExpr *> launches, parallels; // its pragmas, by function
};

/// `extern fn name(…) -> … from "name.cu", "name.cpp"`
struct ExternFunction {
  const ast::ExternDecl *decl;
  FileScope *file;
  ExternFile *cuda = nullptr, *cpp = nullptr; // of one of the two there may be none
  llvm::SetVector<llvm::StringRef> sizeNames; // in the order of the signature
  std::string symbol;                         // once called
  bool failed = false;                        // an error was reported
};

/// A setting of an optimizer. Its value: a number, a function of the count of updates, or an
/// expression that is evaluated in each step (DeferredValue); anything else is handed on.
struct Setting {
  llvm::StringRef name;
  Value value;
  llvm::SMRange where;
};

/// `optim.sgd(lr = 0.1)`: an optimizer with its settings, and the state it has gathered in the
/// model.
struct Optimizer {
  const ast::OptimizerDecl *decl;
  FileScope *file;
  llvm::SMRange madeAt;
  std::string path; // the name it was given in the model
  llvm::SmallVector<Setting> settings;
  const ast::Expr *only = nullptr;
  uint64_t decided = 0; // the settings that decide what code there is: constants, one bit each
  llvm::StringMap<Variable *> slots; // its state, by path
};

/// `train step = optim.adam(loss, …)`
struct TrainStep {
  const ast::TrainDecl *decl;
  Layer *owner;
  Value function;
  llvm::SMRange functionRange;
  Optimizer *optimizer;
};

/// Whether this is a layer, or a list that holds one.
bool isLayerLike(const Value &value);
/// Whether this is a layer, or a list of nothing but layers and functions with a layer among them.
bool isWholeLayer(const Value &value);

} // namespace dlc::language

#endif // DLC_COMPILER_FRONTENDS_LANGUAGE_VALUE_H
