//===- Elaborator.h - a program to one dl.model -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// An abstract interpreter: it walks the tree as a program would run, with numbers, layers and lists
// as values of its own and tensors as values of the IR that it builds on the way. An error is
// reported where it stands and becomes a Poison value, through which everything goes silently, so
// that one run shows several errors.
//
// The parts: ElaborateModel.cpp (files, layers, variables, exported functions), ElaborateExpr.cpp
// (expressions and statements), ElaborateCall.cpp (calls and their shapes), ElaborateTensor.cpp
// (types, broadcasting, arithmetic), ElaborateControl.cpp (branches and loops of run time),
// ElaborateBuiltins.cpp, ElaborateExtern.cpp (extern functions, gradients of one's own),
// ElaborateLayers.cpp (layers as values), ElaborateTrain.cpp (gradients, optimizers, train steps).
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_FRONTENDS_LANGUAGE_ELABORATOR_H
#define DLC_COMPILER_FRONTENDS_LANGUAGE_ELABORATOR_H

#include "Language.h"
#include "Value.h"
#include "dialects/dl/Dl.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/StringSet.h"

namespace dlc::language {

/// One source file with the names it declares.
struct FileScope {
  const ast::File *ast = nullptr;
  std::string folder;
  bool library = false;
  llvm::StringMap<const ast::Decl *> decls;
  llvm::StringMap<FileScope *> modules; // imports
  llvm::StringMap<Value> constants;     // evaluated so far
  llvm::StringSet<> evaluating;         // constants under evaluation
};

/// The names of an optimizer while it is applied: settings and constants, and its state.
struct OptimizerScope {
  Optimizer *optimizer;
  llvm::MapVector<llvm::StringRef, Value> values;
  llvm::MapVector<llvm::StringRef, Variable *> state; // one in all
  llvm::MapVector<llvm::StringRef, Variable *> each;  // of the variable at hand
};

/// One call, or the declarations of one layer: the innermost names.
struct Frame {
  FileScope *file = nullptr;
  Layer *owner = nullptr;
  OptimizerScope *optimizer = nullptr;
  const ast::FnDecl *fn = nullptr;
  llvm::StringMap<Value> locals;
  std::optional<Shape> ellipsis; // what `...` stands for
  std::optional<DType> drawType; // with drawShape: what a draw takes from the declared name
  Shape drawShape;
  Frame *caller = nullptr;
  llvm::SMRange call;                    // in the caller's file
  mlir::LocationAttr callLocation;       // the same with all callers, once asked for
  bool returned = false, broken = false; // a `return`, a `break` was met
  mlir::Value brokenWhen;                // a `break` was met where this bool is true
  llvm::StringMap<llvm::SMRange> halves; // names that one side alone of an `if` gave a value
  std::vector<Value> results;
};

/// One `print`: words, with a value between each two of them.
struct LogLine {
  llvm::SmallVector<std::string> words;
  llvm::SmallVector<mlir::Value> values;
  int64_t kept = 0; // so many of its messages, in a branch or loop; else 0
  llvm::SmallVector<Variable *> variables; // where these are: their count, numbers and values
};

/// A dl.func under construction, or code that is thrown away (isScratch).
struct FunctionState {
  mlir::OpBuilder builder; // in `block`, or in the body of a loop or branch
  mlir::Block *block;      // the function's own: what holds on entry stands there
  mlir::Block *checkBlock; // for checks on entry: `block`, or a gradient of one's own, which may go
  std::string name;
  bool isScratch = false;
  bool isConstant = false; // evaluates a constant: reads no variable and draws nothing
  bool isInit = false;     // __init: draws come from the streams of the variables
  llvm::MapVector<Variable *, mlir::Value> entry;  // dl.read, in the order of reading
  llvm::DenseMap<Variable *, mlir::Value> current; // where assigned
  llvm::SetVector<Variable *> assigned;
  mlir::Value seed, calls;          // once drawn
  llvm::StringMap<unsigned> draws;  // number of draws by path
  const Variable *initOf = nullptr; // __init: the variable whose initial value is computed
  std::optional<llvm::SMRange> trainingRead, varAssigned; // for rule 25
  llvm::SmallVector<LogLine> logs;                        // of `print`, in order
  llvm::StringMap<unsigned> prints;                       // in branches and loops, by what they show
  int64_t checkpoints = 0;                                // calls of `checkpoint(f)`, numbered
  llvm::StringSet<> checks; // conditions on sizes that are checked on entry, by text
  llvm::DenseMap<mlir::AffineExpr, mlir::AffineExpr> multiples; // N: 2 * (N / 2), once checked
  /// Whole numbers that the function computes, tensor<i64>: number k is dimension k of a Number's
  /// size. Between which sizes it lies, both included, where that is known.
  struct Whole {
    mlir::Value value;
    mlir::AffineExpr low, high;
  };
  std::vector<Whole> wholes;
  /// The loops around the builder. The number of turns is null where it is not known.
  struct Loop {
    mlir::Value index;
    mlir::AffineExpr first, turns;
  };
  llvm::SmallVector<Loop> loops;
  unsigned conditions = 0; // around the builder: branches, loops that may end before their last turn

  FunctionState(mlir::MLIRContext *context, mlir::Block *block)
      : builder(context), block(block), checkBlock(block) {
    builder.setInsertionPointToEnd(block);
  }
  /// Where what holds on entry is built, and where checks on entry are.
  mlir::OpBuilder atEntry() const { return builderIn(block); }
  mlir::OpBuilder atCheck() const { return builderIn(checkBlock); }
  mlir::OpBuilder builderIn(mlir::Block *block) const;
};

/// The arguments of a call, evaluated.
struct CallArguments {
  llvm::SmallVector<Value> positional;
  llvm::SmallVector<llvm::SMRange> places; // of the positional ones, where they stand in the text
  llvm::SmallVector<std::pair<ast::Name, Value>> named;
  llvm::SMRange range; // the call
  bool poisoned() const;
};

class Elaborator {
public:
  Elaborator(mlir::MLIRContext &context, llvm::SourceMgr &sources, const LanguageOptions &options,
             Diagnostics &diagnostics);
  mlir::OwningOpRef<mlir::ModuleOp> run(const std::string &path);
  mlir::OwningOpRef<mlir::ModuleOp> run(std::unique_ptr<llvm::MemoryBuffer> text);

private:
  using Report = Diagnostics::Report;
  mlir::OwningOpRef<mlir::ModuleOp> elaborate(FileScope *file);

  //===--- errors and places (ElaborateModel.cpp) ---===//

  /// Reports at the user's own line: in the library, where it was called from.
  Report &error(llvm::SMRange where, const llvm::Twine &message);
  Report &error(const ast::Expr *expr, const llvm::Twine &message);
  /// The user's own line for a place in the library; \p at becomes the frame that it stands in.
  llvm::SMRange userPlace(llvm::SMRange where, Frame *&at) const;
  /// The source text of a place.
  static llvm::StringRef sourceOf(llvm::SMRange range);
  /// "… is not supported yet".
  Value unsupported(llvm::SMRange where, const llvm::Twine &what);
  mlir::Location locationOf(llvm::SMLoc where);
  mlir::Location locationOf(llvm::SMRange where) { return locationOf(where.Start); }
  std::string describe(const Value &value) const;
  std::string describeType(mlir::Value value) const;
  std::string describeShape(llvm::ArrayRef<mlir::AffineExpr> shape) const;
  std::string describeType(DType dtype, llvm::ArrayRef<mlir::AffineExpr> shape) const;
  std::string text(const Number &number) const { return toString(number, dimNames); }

  //===--- files and names (ElaborateModel.cpp) ---===//

  FileScope *load(const std::string &path, llvm::SMRange from);
  FileScope *loadBuffer(std::unique_ptr<llvm::MemoryBuffer> buffer, const std::string &folder,
                        bool library);
  void declareItems(FileScope *file);
  FileScope *import(FileScope *from, const ast::ImportDecl *decl);
  Value lookup(llvm::StringRef name, llvm::SMRange where);
  /// The value of a name of a file; nothing if it has none.
  std::optional<Value> lookupInFile(FileScope *file, llvm::StringRef name, llvm::SMRange where);
  Value constantOf(FileScope *file, const ast::ConstDecl *decl);
  /// Evaluates an expression outside of any function: what needs tensor operations is deferred.
  Value evaluateConstant(const ast::Expr *expr, FileScope *file, Layer *owner);
  Value undefer(const Value &value, llvm::SMRange where);

  //===--- layers and variables (ElaborateModel.cpp) ---===//

  const ast::LayerDecl *chooseModel(FileScope *file);
  Layer *makeModel(const ast::LayerDecl *decl, FileScope *file);
  Value makeLayer(const LayerMaker &maker, const CallArguments &arguments);
  void declareMembers(Layer *layer, llvm::ArrayRef<ast::Decl *> members);
  void declareMember(Layer *layer, ast::Name name, Member member);
  void declareVariable(Layer *layer, const ast::VariableDecl *decl);
  void declarePrecision(Layer *layer, const ast::PrecisionDecl *decl);
  /// The type to which the operands of products are rounded, where they are.
  std::optional<DType> productType() const;
  void checkAssertion(const ast::Assertion &assertion, Layer *model);
  void freeze(const Value &value);
  void place(const Value &value, const std::string &path);
  void placeParams(const Value &value, llvm::DenseSet<Layer *> &seen);
  /// The variables of a layer, list or model, each once, in order.
  void variablesOf(const Value &value, llvm::SetVector<Variable *> &into);
  bool evaluateVariableType(const ast::Type *type, DType &dtype, Shape &shape, bool isVar,
                            llvm::SMRange where);

  //===--- functions of the model (ElaborateModel.cpp) ---===//

  void exportFunctions();
  void exportFunction(llvm::StringRef name, const ast::FnDecl *fn, const TrainStep *train,
                      bool gradients);
  void buildInit();
  void buildVariables();
  mlir::Value initialValueOf(Variable *variable);

  //===--- expressions and statements (ElaborateExpr.cpp) ---===//

  Value evaluate(const ast::Expr *expr);
  Value evaluateUnlimited(const ast::Expr *expr);
  Value evaluateChain(const ast::ChainExpr *chain);
  Value evaluateLogic(const ast::ChainExpr *chain);
  Value evaluateIf(const ast::IfExpr *branch);
  Value evaluateComprehension(const ast::ComprehensionExpr *each);
  Value evaluateField(const ast::FieldExpr *field);
  Value fieldOf(const Value &base, ast::Name name, llvm::SMRange where);
  Value evaluateIndex(const ast::IndexExpr *index);
  Value evaluateRange(const ast::RangeExpr *range);
  std::optional<std::vector<Value>> sequenceOf(const Value &value, llvm::SMRange where);
  /// A condition: a bool of compile time, a tensor of one bool, or poison after an error.
  Value conditionOf(const ast::Expr *condition);
  /// A condition that decides what is declared: nothing if an error was reported.
  std::optional<bool> evaluateCondition(const ast::Expr *condition, llvm::StringRef what);
  Value runBlock(const ast::Block *block) { return runStatements(block->statements); }
  Value runStatements(llvm::ArrayRef<const ast::Stmt *> statements);
  void runStatement(const ast::Stmt *statement);
  void runAssign(const ast::AssignStmt *statement);
  void runAugment(const ast::AugmentStmt *statement);
  void runFor(const ast::ForStmt *loop);
  void poisonAssigned(const ast::Block *block);
  void assign(const ast::Expr *target, Value value, llvm::SMRange where);
  void assignName(llvm::StringRef name, Value value, llvm::SMRange where);
  void assignElement(const ast::IndexExpr *target, Value value, std::optional<Tok> op,
                     llvm::SMRange where);
  void store(Variable *variable, const Value &value, llvm::SMRange where);
  Value readVariable(Variable *variable, llvm::SMRange where);
  void checkStatementAssertion(const ast::Assertion &assertion);
  /// A status of the call, with these words, unless a bool of the call is true.
  void checkAtRunTime(mlir::Value condition, llvm::StringRef words, llvm::SMRange where);
  /// Emits a check on entry for a comparison of sizes; false if the condition is none.
  bool checkSizes(const ast::Expr *condition, llvm::StringRef words);
  std::optional<std::pair<Number, Number>> sizesCompared(const ast::Expr *condition);

  //===--- layers as values (ElaborateLayers.cpp) ---===//

  /// What a local name gets: of a layer a copy, of its variables the values of now.
  Value localCopy(const Value &value, llvm::SMRange where);
  /// The layer with the values that its variables have now; of a form the form itself. Null where it
  /// is neither, and after an error.
  std::shared_ptr<LayerForm> formOf(const Value &value, llvm::SMRange where);
  /// A part of a form, which shares its values: again a form, or a tensor, or another value.
  Value partOf(const LayerForm &form, const Value &part);
  /// The elements of a list, or of a form of one.
  std::optional<std::vector<Value>> elementsOf(const Value &value);
  /// The variables of \p a beside those of \p b, where both are layers of one kind: made of the same
  /// declarations, with variables of the same types. Else says why not, in words.
  using VariablePairs = llvm::MapVector<Variable *, Variable *>;
  std::optional<VariablePairs> pairVariables(const Value &a, const Value &b, std::string &why);
  /// Applies an operation variable by variable: \p operands are layers, forms, numbers and rank-0
  /// tensors. Integers and bools are the last operand's.
  Value mapVariables(llvm::ArrayRef<Value> operands, llvm::StringRef what, llvm::SMRange where,
                     llvm::function_ref<Value(llvm::MutableArrayRef<Value>)> operation);
  /// Assigns all variables of a declared layer, or of a part of a local one.
  void assignLayer(const Value &target, const Value &value, llvm::SMRange where);
  /// Assigns a variable of a local layer.
  void storeInForm(LayerForm &form, Variable *variable, const Value &value, llvm::SMRange where);
  /// Runs a layer on the values of a form, which a call may change.
  Value callForm(LayerForm &form, CallArguments &arguments);
  /// `copy(net)`: in a declaration a new layer, in a function a local one.
  Value callCopy(llvm::StringRef name, CallArguments &arguments);
  Value copyLayers(const Value &value, llvm::DenseMap<Layer *, Layer *> &copies,
                   llvm::SMRange where);
  /// The variable that a path within a layer names, or null after an error.
  Variable *variableNamed(Layer *layer, llvm::StringRef path, llvm::SMRange where);

  //===--- branches and loops of run time (ElaborateControl.cpp) ---===//

  /// How a value that differs from branch to branch, or turn to turn, is made of tensors.
  struct Form {
    enum class Kind : uint8_t { Same, Tensor, Whole, Real, Bool, List, Layer };
    Kind kind = Kind::Same;
    Value same;               // Same; the list or the form of a layer
    mlir::RankedTensorType type; // Tensor
    std::vector<Form> parts;  // List, Layer
    bool operator==(const Form &other) const {
      return kind == other.kind && type == other.type && parts == other.parts;
    }
  };
  /// Names with a value, by which control flow is compared and restored.
  struct Names {
    std::map<std::string, Value> locals;
    llvm::MapVector<Variable *, mlir::Value> variables; // that were assigned
  };
  Names namesNow() const;
  void setNames(const Names &names);
  /// The form that holds both values; nothing where there is none.
  std::optional<Form> join(const Value &a, const Value &b);
  void typesOf(const Form &form, llvm::SmallVectorImpl<mlir::Type> &into);
  /// The tensors of a value of this form, built here; false after an error, which \p refuse
  /// reports.
  bool lower(const Form &form, const Value &value, llvm::StringRef what, llvm::SMRange where,
             llvm::function_ref<void(const Value &)> refuse,
             llvm::SmallVectorImpl<mlir::Value> &into);
  /// The value again, out of the first of the tensors, which are dropped.
  Value lift(const Form &form, mlir::ValueRange &tensors);
  /// `if` on a bool of run time: the value of the block that is chosen.
  Value branch(mlir::Value condition, llvm::SMRange where, llvm::function_ref<Value()> whenTrue,
               llvm::function_ref<Value()> whenFalse);
  static void widen(Form &form, const Form &before);
  struct LoopPlan;
  struct LoopShape;
  void runLoop(const LoopPlan &plan);
  void runTurn(const LoopPlan &plan, const Names &before, LoopShape &shape, mlir::Block *block,
               llvm::SmallVectorImpl<mlir::Value> *next);
  void runRange(const ast::ForStmt *loop, const RangeValue &range);
  void runWhile(const ast::WhileStmt *loop);
  /// Runs something for nothing: what it builds, declares and reports is forgotten.
  void tryOut(llvm::function_ref<void(mlir::Block *)> run);
  /// A whole number that the function computes, as a number of its own.
  Number numberOfWhole(mlir::Value value, mlir::AffineExpr low = {}, mlir::AffineExpr high = {});
  /// The value of a size in which such numbers take part, tensor<i64>.
  mlir::Value computeWhole(mlir::AffineExpr size, llvm::SMRange where);
  /// A size that is never smaller, or never larger, than one in which such numbers take part.
  std::optional<mlir::AffineExpr> boundOf(mlir::AffineExpr size, bool upper);
  /// The number of this turn among all turns of the loops around: null outside of loops.
  mlir::Value turnNumber(llvm::SMRange where);

  //===--- calls (ElaborateCall.cpp) ---===//

  Value evaluateCall(const ast::CallExpr *call);
  std::optional<CallArguments> evaluateArguments(const ast::CallExpr *call, bool keepDraw);
  Value call(const Value &callee, CallArguments &arguments);
  Value callFunction(const FunctionValue &function, CallArguments &arguments);
  Value callLayer(Layer *layer, CallArguments &arguments);
  Value callConversion(DType dtype, CallArguments &arguments);
  /// Calls and marks what was computed as one to be computed again in the backward pass.
  Value callCheckpointed(const Value &callee, CallArguments &arguments);
  /// The value as an argument of a declared type, whose free sizes it binds.
  Value bindArgument(const ast::Arg &arg, const Value &value, llvm::StringRef function,
                     llvm::SMRange at, Frame &frame);
  /// The arguments of a call as the declared ones take them, which become the callee's locals;
  /// nothing after an error.
  std::optional<std::vector<Value>> bindArguments(llvm::ArrayRef<ast::Arg> declared,
                                                  CallArguments &arguments,
                                                  llvm::StringRef function, Frame &callee);
  /// Binds the free sizes of a declared type; the others replace the ones of \p shape.
  bool bindShape(const ast::Type *type, Shape &shape, llvm::StringRef what, llvm::SMRange at,
                 Frame &frame);
  std::optional<DType> evaluateDType(const ast::Type *type);
  /// A type all of whose sizes are known to the frame.
  std::optional<std::pair<DType, Shape>> evaluateType(const ast::Type *type);
  Value checkResults(const ast::FnDecl *fn, Value value, llvm::SMRange where);
  /// The declared results: a name, and a type where one is written.
  struct ResultDecl {
    llvm::StringRef name;
    const ast::Type *type;
    llvm::SMRange range;
  };
  std::vector<ResultDecl> resultsOf(const ast::FnDecl *fn, FileScope *file, Layer *owner);
  /// Matches arguments with names; null where one is left out. False after an error.
  bool bindNames(CallArguments &arguments, const llvm::Twine &what,
                 llvm::ArrayRef<llvm::StringRef> names, unsigned required,
                 llvm::SmallVectorImpl<Value *> &into);

  //===--- extern functions, gradients of one's own (ElaborateExtern.cpp) ---===//

  void declareExtern(FileScope *file, const ast::ExternDecl *decl);
  ExternFile *loadExtern(const std::string &path, llvm::StringRef written);
  void loadIncludes(const std::string &path, llvm::StringRef text);
  void readPragmas(ExternFile &file, llvm::StringRef text);
  void buildExterns();
  struct ExternLaunch;
  /// In the frame of a call. \p elements: of the first result.
  std::optional<ExternLaunch> evaluateLaunch(const ExternFunction &function,
                                             mlir::AffineExpr elements);
  Value callExtern(const ExternValue &callee, CallArguments &arguments);
  /// A function with a gradient of its own.
  struct OwnGradient {
    const ast::Decl *decl;
    Layer *owner;
    llvm::StringRef name; // in quotes, for messages
    ast::Name gradient;
    FileScope *file;
    llvm::ArrayRef<ast::Arg> args;
  };
  /// What a call with the arguments \p given returned, with the gradient of its own.
  Value withGradient(const OwnGradient &of, Value result, llvm::ArrayRef<Value> given,
                     llvm::SMRange where);

  //===--- sizes that must fit (ElaborateTensor.cpp) ---===//

  /// Whether two sizes are equal in every call that gets past its entry: algebra or an assert says
  /// so, or a check on entry does, which is made here and listed as a remark. False where they can
  /// never be.
  bool equalSizes(mlir::AffineExpr a, mlir::AffineExpr b, const llvm::Twine &what,
                  llvm::SMRange where);
  /// The tensor under a shape that must be its own, by equalSizes; null where it can never be.
  mlir::Value conform(mlir::Value value, llvm::ArrayRef<mlir::AffineExpr> shape,
                      const llvm::Twine &what, llvm::SMRange where);
  /// The same where the sizes are known to be equal.
  mlir::Value assumeShape(mlir::Value value, llvm::ArrayRef<mlir::AffineExpr> shape,
                          llvm::SMRange where);
  /// A condition that calls are refused without, with words for who calls.
  void checkOnEntry(mlir::AffineExpr lhs, llvm::StringRef predicate, mlir::AffineExpr rhs,
                    const llvm::Twine &words, llvm::SMRange where);
  /// The condition as a key, the same for the same condition; the symmetric ones either way round.
  std::string conditionKey(mlir::AffineExpr lhs, llvm::StringRef predicate, mlir::AffineExpr rhs);
  /// The size with each dimension that is known to be a multiple written as one.
  mlir::AffineExpr withMultiples(mlir::AffineExpr size);
  /// A number of sizes as a size: that it comes out whole is checked on entry if need be.
  mlir::AffineExpr wholeSize(const Number &number, llvm::SMRange where);

  //===--- tensors (ElaborateTensor.cpp) ---===//

  mlir::OpBuilder &builder() { return function->builder; }
  /// Out of a region to the start of the function: what is made there is known everywhere in it.
  void goToFunction() {
    if (builder().getInsertionBlock() != function->block)
      builder().setInsertionPointToStart(function->block);
  }
  mlir::Type typeOf(DType dtype);
  static DType dtypeOf(mlir::Value value);
  mlir::RankedTensorType tensorType(llvm::ArrayRef<mlir::AffineExpr> shape, DType dtype) {
    return dl::tensorType(shape, typeOf(dtype));
  }
  static Shape shapeOf(mlir::Value value) {
    auto sizes = dl::sizesOf(value);
    return Shape(sizes.begin(), sizes.end());
  }
  static int64_t rankOf(mlir::Value value) {
    return llvm::cast<mlir::RankedTensorType>(value.getType()).getRank();
  }
  mlir::AffineExpr constantSize(int64_t n) { return mlir::getAffineConstantExpr(n, &context); }
  bool checkElements(llvm::ArrayRef<mlir::AffineExpr> shape, llvm::SMRange where);
  mlir::Value build(llvm::StringRef op, mlir::ValueRange operands, llvm::SMRange where,
                    llvm::ArrayRef<mlir::NamedAttribute> attributes = {}, mlir::Type result = {});
  mlir::Value fill(mlir::RankedTensorType type, const Number &number, llvm::SMRange where);
  mlir::Value broadcast(mlir::Value value, llvm::ArrayRef<mlir::AffineExpr> shape,
                        llvm::SMRange where);
  std::optional<Shape> broadcastShapes(llvm::ArrayRef<mlir::Value> values, llvm::StringRef what,
                                       llvm::SMRange where);
  mlir::Value reshape(mlir::Value value, llvm::ArrayRef<mlir::AffineExpr> shape,
                      llvm::SMRange where);
  mlir::Value convert(mlir::Value value, DType dtype, llvm::SMRange where);
  mlir::Value transpose(mlir::Value value, llvm::ArrayRef<int64_t> permutation,
                        llvm::SMRange where);
  /// A number as a tensor<f64> of the function.
  mlir::Value runtimeNumber(const Number &number, llvm::SMRange where);
  /// A number as a tensor of a type; null after an error.
  mlir::Value materialize(const Number &number, DType dtype, llvm::ArrayRef<mlir::AffineExpr> shape,
                          llvm::SMRange where, bool exact = true);
  mlir::Value materializeArray(const ArrayValue &array, llvm::SMRange where);
  /// Anything that is a tensor or can become one, alone: whole numbers i32, others f32, bools.
  mlir::Value toTensor(const Value &value, llvm::SMRange where, llvm::StringRef what = "");
  /// Operands of one element type: tensors must agree, numbers follow them.
  bool unify(llvm::MutableArrayRef<Value> values, llvm::SmallVectorImpl<mlir::Value> &into,
             llvm::StringRef what, llvm::SMRange where);
  /// Operands of one element type and shape, broadcast.
  bool unifyShapes(llvm::MutableArrayRef<Value> values, llvm::SmallVectorImpl<mlir::Value> &into,
                   llvm::StringRef what, llvm::SMRange where);
  /// A value as a tensor of a declared type.
  mlir::Value fit(const Value &value, DType dtype, llvm::ArrayRef<mlir::AffineExpr> shape,
                  llvm::StringRef what, llvm::SMRange where);
  Value binary(Tok op, Value a, Value b, llvm::SMRange where);
  Value compare(Tok op, Value a, Value b, llvm::SMRange where);
  Value negate(const Value &value, llvm::SMRange where);
  Value matmul(mlir::Value a, mlir::Value b, llvm::SMRange where);
  Value power(Value a, Value b, llvm::SMRange where);
  /// An elementwise op of the dialect by its name, on values of any kind.
  Value elementwise(llvm::StringRef name, llvm::MutableArrayRef<Value> operands,
                    llvm::SMRange where);
  mlir::Value reduce(llvm::StringRef name, mlir::Value value, llvm::ArrayRef<int64_t> axes,
                     bool keep, llvm::SMRange where);
  mlir::Value meanOver(mlir::Value value, llvm::ArrayRef<int64_t> axes, bool keep,
                       llvm::SMRange where);
  Value indexTensor(mlir::Value value, llvm::ArrayRef<ast::Subscript> subscripts,
                    llvm::SMRange where);
  /// The part of a tensor that subscripts name: starts, strides and sizes per axis, then tensors of
  /// indices of one type along axes of that (dl.gather's), and the shape that is left.
  struct Region {
    /// What is taken first: a slice whose start the function computes, or one element, which drops
    /// the axis. Axes are counted as the slices before have left them.
    struct Computed {
      int64_t axis;
      mlir::AffineExpr start, length;
      bool drops;
      llvm::SMRange range;
      /// Whether the axis has fewer elements for any start: what takes some is in a loop of no turns,
      /// or fails.
      bool isBeyond(mlir::Value value) const {
        auto most = llvm::dyn_cast<mlir::AffineConstantExpr>(
            dl::normalizeSize(dl::sizesOf(value)[axis] - length));
        return most && most.getValue() < 0;
      }
    };
    llvm::SmallVector<Computed> computed;
    Shape starts, sizes, shape; // of what is left after that
    llvm::SmallVector<int64_t> strides;
    llvm::SmallVector<mlir::Value> indices;
    llvm::SmallVector<int64_t> axes;
    int64_t position = 0;
  };
  /// The value after each of the computed slices, and where they start.
  bool takeComputed(mlir::Value value, const Region &region,
                    llvm::SmallVectorImpl<mlir::Value> &values,
                    llvm::SmallVectorImpl<mlir::Value> &starts);
  bool isWhole(const Region &region, mlir::Value value) const;
  std::optional<Region> regionOf(mlir::Value value, llvm::ArrayRef<ast::Subscript> subscripts,
                                 llvm::SMRange where);
  /// A subscript that is a tensor of indices, or a number beside one, and the axis that it indexes.
  struct Place {
    int64_t axis;
    mlir::Value tensor;     // or
    mlir::AffineExpr start; // in range
    llvm::SMRange range;
  };
  /// Makes the region's tensors of indices: of one type and shape, checked where nothing says that
  /// they lie inside. Returns their shape.
  std::optional<Shape> indicesOf(mlir::Value value, llvm::ArrayRef<Place> places, Region &region,
                                 llvm::SMRange where);
  /// The region's slice alone, or the value where that is all of it.
  mlir::Value sliceOf(mlir::Value value, const Region &region, llvm::SMRange where);
  /// The region's elements, as dl.gather has them where there are tensors of indices.
  mlir::Value elementsOf(mlir::Value value, const Region &region, llvm::SMRange where);

  // Numbers out of values; errors are reported.
  std::optional<Number> numberOf(const Value &value, llvm::StringRef what, llvm::SMRange where);
  std::optional<int64_t> wholeOf(const Value &value, llvm::StringRef what, llvm::SMRange where);
  mlir::AffineExpr sizeOf(const Value &value, llvm::SMRange where);
  std::optional<Shape> shapeListOf(const Value &value, llvm::SMRange where);
  std::optional<bool> boolOf(const Value &value, llvm::StringRef what, llvm::SMRange where);
  /// The settings that a value of compile time was computed from decide what code there is.
  void decide(uint64_t settings) { decidedSettings |= settings; }

  //===--- builtins (ElaborateBuiltins.cpp) ---===//

  Value callBuiltin(llvm::StringRef name, CallArguments &arguments);
  using Builtin = Value (Elaborator::*)(llvm::StringRef name, CallArguments &arguments);
  static const llvm::StringMap<Builtin> &builtins();
  bool isBuiltin(llvm::StringRef name);
  void collectBuiltins();
  std::optional<llvm::SmallVector<int64_t>> axesOf(const Value *axis, mlir::Value of,
                                                   llvm::SMRange where);
  Value callElementwise(llvm::StringRef name, CallArguments &arguments);
  Value callReduction(llvm::StringRef name, CallArguments &arguments);
  Value callArgReduction(llvm::StringRef name, CallArguments &arguments);
  Value callSoftmax(llvm::StringRef name, CallArguments &arguments);
  Value callLogsumexp(llvm::StringRef name, CallArguments &arguments);
  Value callClip(llvm::StringRef name, CallArguments &arguments);
  Value callWhere(llvm::StringRef name, CallArguments &arguments);
  Value callReshape(llvm::StringRef name, CallArguments &arguments);
  Value callTranspose(llvm::StringRef name, CallArguments &arguments);
  Value callConcat(llvm::StringRef name, CallArguments &arguments);
  Value callStack(llvm::StringRef name, CallArguments &arguments);
  Value callSplit(llvm::StringRef name, CallArguments &arguments);
  Value callFilled(llvm::StringRef name, CallArguments &arguments);
  Value callFilledLike(llvm::StringRef name, CallArguments &arguments);
  Value callDraw(llvm::StringRef name, CallArguments &arguments);
  Value callDrawLike(llvm::StringRef name, CallArguments &arguments);
  Value callArray(llvm::StringRef name, CallArguments &arguments);
  Value callArange(llvm::StringRef name, CallArguments &arguments);
  Value callShape(llvm::StringRef name, CallArguments &arguments);
  Value callSize(llvm::StringRef name, CallArguments &arguments);
  Value callRank(llvm::StringRef name, CallArguments &arguments);
  Value callCrossEntropy(llvm::StringRef name, CallArguments &arguments);
  Value callBinaryCrossEntropy(llvm::StringRef name, CallArguments &arguments);
  Value callHuber(llvm::StringRef name, CallArguments &arguments);
  Value callVariance(llvm::StringRef name, CallArguments &arguments);
  Value callNorm(llvm::StringRef name, CallArguments &arguments);
  Value callOneHot(llvm::StringRef name, CallArguments &arguments);
  Value callStopGradient(llvm::StringRef name, CallArguments &arguments);
  Value callGrad(llvm::StringRef name, CallArguments &arguments);
  Value callCheckpoint(llvm::StringRef name, CallArguments &arguments);
  Value callPrint(llvm::StringRef name, CallArguments &arguments);
  Variable *printedVariable(const std::string &path, DType dtype, llvm::ArrayRef<int64_t> shape);
  mlir::Value firstElements(mlir::Value tensor, llvm::SMRange where);
  /// Keeps the message that a branch or loop prints now, beside earlier ones of the same `print`.
  void keepMessages(LogLine &line, llvm::SMRange where);
  /// Appends the values of the function's messages to its results; gives `logs` of dl.func.
  llvm::SmallVector<mlir::Attribute> finishMessages(llvm::SmallVectorImpl<mlir::Value> &results,
                                                    llvm::SMRange where);
  Value callLoad(llvm::StringRef name, CallArguments &arguments);
  Value callAttention(llvm::StringRef name, CallArguments &arguments);
  Value reduceLoss(mlir::Value loss, const Value *reduction, llvm::StringRef name,
                   llvm::SMRange where);
  mlir::Value draw(llvm::StringRef op, mlir::RankedTensorType type, llvm::SMRange where,
                   int64_t low = 0, int64_t high = 0);
  Value scaledDraw(llvm::StringRef name, const Value *a, const Value *b, DType dtype,
                   llvm::ArrayRef<mlir::AffineExpr> shape, llvm::SMRange where);

  //===--- convolutions and pooling (ElaborateWindows.cpp) ---===//

  Value callConvolution(llvm::StringRef name, CallArguments &arguments);
  Value callPooling(llvm::StringRef name, CallArguments &arguments);
  std::optional<llvm::SmallVector<int64_t>>
  windowSetting(const Value *value, llvm::StringRef setting, llvm::StringRef name, int64_t least,
                llvm::ArrayRef<int64_t> otherwise, llvm::SMRange where);
  mlir::Value imagesOf(const Value &value, llvm::StringRef name, llvm::SMRange where);
  mlir::AffineExpr windowsAlong(mlir::AffineExpr size, int64_t kernel, int64_t stride,
                                int64_t padding, int64_t dilation, llvm::StringRef name,
                                llvm::SMRange where);

  //===--- training (ElaborateTrain.cpp) ---===//

  /// The floating-point values that `value` is computed from, through operations that gradients
  /// pass.
  llvm::DenseSet<mlir::Value> dependencesOf(mlir::Value value);
  llvm::SmallVector<mlir::Value> gradient(mlir::Value value, llvm::ArrayRef<mlir::Value> wanted,
                                          llvm::SMRange where);
  /// Collects what a gradient is wanted of; an error where `value` does not depend on it.
  bool collectWanted(const Value &wanted, const llvm::DenseSet<mlir::Value> &reached,
                     llvm::SetVector<mlir::Value> &into, llvm::StringRef what, llvm::SMRange where);
  /// The gradients in the form of what was wanted.
  Value gradientForm(const Value &wanted, const llvm::DenseMap<mlir::Value, mlir::Value> &gradients,
                     llvm::SMRange where);
  /// The value that a variable has now; null if nothing has read or assigned it.
  mlir::Value currentValue(Variable *variable);
  /// The tensors of a gradient, in the order of the variables; false if it is none.
  bool flattenGradients(const Value &value, llvm::SmallVectorImpl<mlir::Value> &into);
  Value makeOptimizer(const OptimizerMaker &maker, const ast::CallExpr *call, bool isStep);
  Value evaluateSetting(const ast::Expr *expr, FileScope *file, Layer *owner);
  void declareTrain(Layer *layer, const ast::TrainDecl *decl);
  Value callTrain(TrainStep *step, CallArguments &arguments);
  Value callOptimizer(Optimizer *optimizer, const ast::CallExpr *call);
  /// The variables that an expression names: a variable, layer, list or pattern.
  bool placesOf(const ast::Expr *expr, llvm::SetVector<Variable *> &into);
  /// Updates variables by their gradients: accumulation, clipping, then the optimizer's own code.
  void applyOptimizer(Optimizer *optimizer, llvm::ArrayRef<Variable *> variables,
                      llvm::SmallVector<mlir::Value> gradients, llvm::SMRange where);
  /// The same of a loss's derivatives by `values`, the variables' in f16: the loss is scaled, and
  /// where a derivative is not finite nothing changes but the scale (ElaboratePrecision.cpp).
  void applyScaled(Optimizer *optimizer, mlir::Value loss, llvm::ArrayRef<Variable *> variables,
                   llvm::ArrayRef<mlir::Value> values, llvm::SMRange where);
  /// Takes back, where the condition does not hold, what has changed since `before`: the variables
  /// and the optimizer's state, but for `others`.
  void changeWhere(mlir::Value condition, Optimizer *optimizer,
                   llvm::ArrayRef<Variable *> variables,
                   const llvm::DenseMap<Variable *, mlir::Value> &before,
                   llvm::ArrayRef<Variable *> others, llvm::SMRange where);
  /// One of two tensors of a shape, as one bool says.
  mlir::Value choose(mlir::Value condition, mlir::Value whenTrue, mlir::Value whenFalse,
                     llvm::SMRange where);
  bool runOptimizer(Optimizer *optimizer, llvm::ArrayRef<Variable *> variables,
                    llvm::SmallVector<mlir::Value> gradients, llvm::SMRange where);
  bool clipGradients(Optimizer *optimizer, llvm::MutableArrayRef<mlir::Value> gradients,
                     llvm::SMRange where);
  struct OptimizerParts;
  void collectParts(OptimizerScope &scope, llvm::ArrayRef<ast::Decl *> parts, OptimizerParts &into);
  std::optional<unsigned> findSetting(Optimizer *optimizer, llvm::StringRef name);
  Value settingValue(Optimizer *optimizer, unsigned number, llvm::SMRange where);
  Variable *slot(Optimizer *optimizer, const std::string &path, DType dtype,
                 llvm::ArrayRef<mlir::AffineExpr> shape, const Value &initial, ast::Name name = {});
  /// What the state of an optimizer begins with, in __init: settings have their first values.
  Value initialStateOf(Variable *slot, const ast::Expr *initial);
  void setVariable(Variable *variable, mlir::Value value) {
    function->current[variable] = value;
    function->assigned.insert(variable);
  }

  //===--- state ---===//

  mlir::MLIRContext &context;
  llvm::SourceMgr &sources;
  const LanguageOptions &options;
  Diagnostics &diagnostics;
  ast::Arena arena;

  std::vector<std::unique_ptr<FileScope>> files;
  bool hasHoles = false; // a file has a syntax error
  llvm::StringMap<FileScope *> filesByPath;
  llvm::StringMap<std::shared_ptr<ArrayValue>> arraysByPath; // of `load`; null: an error
  std::vector<std::unique_ptr<Layer>> layers;
  std::vector<std::unique_ptr<Variable>> variables;
  std::vector<std::unique_ptr<Optimizer>> optimizers;
  std::vector<std::unique_ptr<TrainStep>> trainSteps;
  llvm::DenseMap<const ast::ExternDecl *, std::unique_ptr<ExternFunction>> externs;
  llvm::StringMap<std::unique_ptr<ExternFile>> externFiles; // by path
  llvm::StringSet<> externHeaders;
  llvm::SetVector<ExternFunction *> usedExterns;
  llvm::DenseSet<std::pair<const ast::Decl *, Layer *>> gradientsUnderway;

  Layer *model = nullptr;
  const ast::PrecisionDecl *precision = nullptr; // of the model, if it has one
  dl::ModelOp modelOp;
  llvm::SmallVector<llvm::StringRef> dimNames; // of the model's dynamic dimensions
  std::vector<std::pair<const ast::Assertion *, Layer *>> sizeAssertions; // checked on entry
  llvm::StringSet<> asserted;    // what they say, by conditionKey
  std::vector<Variable *> slots; // state of optimizers, in the order in which it was declared
  Variable *seedVariable = nullptr, *callsVariable = nullptr;
  llvm::StringMap<std::unique_ptr<Variable>> printed; // by path

  std::vector<llvm::StringRef> builtinNames; // sorted
  Frame *frame = nullptr;
  FunctionState *function = nullptr;
  bool declaring = false; // evaluates declarations: layers may be made
  unsigned depth = 0;     // of expressions
  uint64_t steps = 0;     // expressions that were evaluated
  unsigned calls = 0;     // of functions and layers
  uint64_t decidedSettings = 0;
  bool tracksSettings = false; // numbers remember the settings that they come from
  struct Mode {
    bool training;
    bool chosen; // by a train step, `train fn`, a frozen part or an argument
    bool forced; // by an argument: a frozen part follows it
  };
  llvm::SmallVector<Mode> modes;

  friend struct FrameScope;
};

/// Makes a frame the innermost one while it lives.
struct FrameScope {
  Elaborator &elaborator;
  Frame *before;
  FrameScope(Elaborator &elaborator, Frame &frame)
      : elaborator(elaborator), before(elaborator.frame) {
    elaborator.frame = &frame;
  }
  ~FrameScope() { elaborator.frame = before; }
};

/// The name among \p names, or else \p farther, that is nearest to a misspelled one, as
/// "; did you mean 'x'?", or nothing.
std::string didYouMean(llvm::StringRef name, llvm::ArrayRef<llvm::StringRef> names,
                       llvm::ArrayRef<llvm::StringRef> farther = {});

/// The hash that names a stream of random numbers: FNV-1a of the path, 32 bits.
uint32_t streamOf(llvm::StringRef path);

/// The text of a file of the library (compiler/library), or nothing.
std::optional<llvm::StringRef> libraryFile(llvm::StringRef name);

/// Checks the names of a whole file, used or not, and what else needs no elaboration: arguments
/// named like members, the place of `return`.
void checkNames(const FileScope &file, llvm::ArrayRef<llvm::StringRef> builtins,
                Diagnostics &diagnostics);

} // namespace dlc::language

#endif // DLC_COMPILER_FRONTENDS_LANGUAGE_ELABORATOR_H
