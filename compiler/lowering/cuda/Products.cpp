//===- Products.cpp - what cuBLASLt computes of a kernel with a product -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cuda/Products.h"
#include "llvm/ADT/DenseSet.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cuda {

static int64_t launchOf(Operation *op) { return op->getAttrOfType<IntegerAttr>("launch").getInt(); }
static ArrayRef<int64_t> buffersOf(Operation *op, StringRef name) { return op->getAttrOfType<DenseI64ArrayAttr>(name).asArrayRef(); }

/// The one op that reads a value, or null.
static Operation *onlyUser(Value value) { return value.hasOneUse() ? *value.user_begin() : nullptr; }

static bool isZero(Value value) {
  auto fill = value.getDefiningOp<FillOp>();
  auto number = fill ? dyn_cast<FloatAttr>(fill.getValue()) : FloatAttr();
  return number && number.getValue().isZero();
}

/// What lies in memory under a shape of the product's choice: the kernel's own input.
static BlockArgument inputOf(Value factor) {
  while (Operation *def = factor.getDefiningOp())
    factor = def->getOperand(0);
  return cast<BlockArgument>(factor);
}

int64_t bufferOfFactor(FusedOp kernel, Value factor) { return buffersOf(kernel, "input_buffers")[inputOf(factor).getArgNumber()]; }

/// A row that is repeated, straight from memory: the kernel's input.
static BlockArgument rowInput(Value value) {
  auto broadcast = value.getDefiningOp<BroadcastOp>();
  int64_t rank = cast<RankedTensorType>(value.getType()).getRank();
  if (!broadcast || broadcast.getAxes() != ArrayRef<int64_t>{rank - 1})
    return {};
  return dyn_cast<BlockArgument>(broadcast.getX());
}

/// One number for all elements.
static bool isScalar(Value value) {
  if (value.getDefiningOp<FillOp>())
    return true;
  auto broadcast = value.getDefiningOp<BroadcastOp>();
  return broadcast && broadcast.getAxes().empty();
}

/// Which result of a kernel a value of its body is.
static std::optional<unsigned> resultNumber(FusedOp kernel, Value value) {
  auto yield = cast<YieldOp>(kernel.getBody().front().getTerminator());
  for (auto [number, yielded] : llvm::enumerate(yield.getOperands()))
    if (yielded == value)
      return number;
  return std::nullopt;
}

/// The product of matrices that a kernel has; a convolution is none.
static MatmulOp matmulOf(FusedOp kernel) {
  auto products = kernel.getBody().front().getOps<MatmulOp>();
  return products.empty() ? MatmulOp() : *products.begin();
}

namespace {
/// What becomes of a product that is the cotangent of an activation's result.
struct ActivationGradient {
  Value result;
  BlockArgument saved; // what the forward pass has left: relu's result, gelu_tanh's operand
  bool isGelu;
};
} // namespace

static std::optional<ActivationGradient> activationGradient(Value product) {
  Operation *user = onlyUser(product);
  if (auto select = dyn_cast_or_null<SelectOp>(user)) {
    // 0 where relu was 0, else the product.
    auto compare = select.getCondition().getDefiningOp<CompareOp>();
    if (select.getWhenFalse() != product || !isZero(select.getWhenTrue()) || !compare || compare.getPredicate() != ComparePredicate::le || !isZero(compare.getRhs()))
      return std::nullopt;
    if (auto relu = dyn_cast<BlockArgument>(compare.getLhs()))
      return ActivationGradient{select.getResult(), relu, false};
    return std::nullopt;
  }
  if (!isa_and_nonnull<MulOp, MulNoNanOp>(user))
    return std::nullopt;
  auto derivative = user->getOperand(user->getOperand(0) == product ? 1 : 0).getDefiningOp<GeluTanhDerivativeOp>();
  auto operand = derivative ? dyn_cast<BlockArgument>(derivative.getX()) : BlockArgument();
  return operand ? std::optional(ActivationGradient{user->getResult(0), operand, true}) : std::nullopt;
}

/// Do only products read a result, and only for their epilogue gelu_tanh's gradient?
static bool isReadAsSaved(Value result) {
  for (OpOperand &use : result.getUses()) {
    auto kernel = dyn_cast<FusedOp>(use.getOwner());
    MatmulOp product = kernel ? matmulOf(kernel) : MatmulOp();
    std::optional<ActivationGradient> gradient = product ? activationGradient(product.getResult()) : std::nullopt;
    // In a loop or branch it would be read again, or another time.
    if (!gradient || kernel->getBlock() != result.getParentBlock() || !gradient->isGelu || gradient->saved != kernel.getBody().getArgument(use.getOperandNumber()) || !gradient->saved.hasOneUse() ||
        !gradient->saved.user_begin()->hasOneUse())
      return false;
  }
  return true;
}

namespace {
class Planner {
public:
  Planner(FuncOp function, const CudaOptions &options) : function(function), options(options) {}
  ProductPlans run();

private:
  void matchForward(FusedOp kernel, ProductPlan &plan);
  void matchGelu(FusedOp kernel, ProductPlan &plan);
  void matchUpdate(FusedOp kernel, ProductPlan &plan);
  void matchGradient(FusedOp kernel, ProductPlan &plan);
  void matchSums();
  bool isVariable(int64_t buffer) const;
  bool writesVariables(FusedOp kernel, Value but) const;
  FusedOp sumOverRows(Value gradient, Operation *product, ProductPlan &plan) const;
  bool mayWaitFor(FusedOp kernel, Operation *other) const;

  FuncOp function;
  const CudaOptions &options;
  ProductPlans plans;
  DenseSet<Operation *> servedSums;
};
} // namespace

/// + bias, relu or gelu_tanh.
void Planner::matchForward(FusedOp kernel, ProductPlan &plan) {
  if (auto add = dyn_cast_or_null<AddOp>(onlyUser(plan.prefix))) {
    Value other = add->getOperand(0) == plan.prefix ? add->getOperand(1) : add->getOperand(0);
    if (BlockArgument row = rowInput(other)) {
      plan.bias = buffersOf(kernel, "input_buffers")[row.getArgNumber()];
      plan.epilogue = DL_CUDA_EPILOGUE_BIAS;
      plan.prefix = add->getResult(0);
    }
  }
  if (auto relu = dyn_cast_or_null<ReluOp>(onlyUser(plan.prefix))) {
    plan.epilogue = plan.bias ? DL_CUDA_EPILOGUE_RELU_BIAS : DL_CUDA_EPILOGUE_RELU;
    plan.prefix = relu->getResult(0);
    return;
  }
  matchGelu(kernel, plan);
}

/// gelu_tanh of what is computed so far. Where that is a result of the kernel too, cuBLASLt writes it as its auxiliary output: to its place, if that has rows of a
/// length that it takes, else somewhere in rows that are longer, where only products find it.
void Planner::matchGelu(FusedOp kernel, ProductPlan &plan) {
  auto users = plan.prefix.getUsers();
  auto gelu = llvm::find_if(users, [](Operation *user) { return isa<GeluTanhOp>(user); });
  if (gelu == users.end())
    return;
  std::optional<unsigned> result = resultNumber(kernel, plan.prefix);
  if (result) {
    int64_t buffer = buffersOf(kernel, "result_buffers")[*result];
    if (sizesOf(plan.prefix).back().getLargestKnownDivisor() % savedRowMultiple == 0 && !isVariable(buffer))
      plan.savedIn = buffer;
    else if (!isReadAsSaved(kernel.getResult(*result)) || !llvm::hasNItems(users, 2))
      return;
    plan.saved = plan.prefix;
    plan.epilogue = plan.bias ? DL_CUDA_EPILOGUE_GELU_AUX_BIAS : DL_CUDA_EPILOGUE_GELU_AUX;
  } else if (plan.prefix.hasOneUse()) {
    plan.epilogue = plan.bias ? DL_CUDA_EPILOGUE_GELU_BIAS : DL_CUDA_EPILOGUE_GELU;
  } else {
    return;
  }
  plan.prefix = (*gelu)->getResult(0);
}

/// W - scale * product, where W is a variable that becomes the result.
void Planner::matchUpdate(FusedOp kernel, ProductPlan &plan) {
  auto mul = dyn_cast_or_null<MulOp>(onlyUser(plan.prefix));
  if (!mul)
    return;
  Value scale = mul->getOperand(0) == plan.prefix ? mul->getOperand(1) : mul->getOperand(0);
  auto sub = dyn_cast_or_null<SubOp>(onlyUser(mul->getResult(0)));
  if (!isScalar(scale) || !sub || sub->getOperand(1) != mul->getResult(0))
    return;
  auto old = dyn_cast<BlockArgument>(sub->getOperand(0));
  auto yield = cast<YieldOp>(kernel.getBody().front().getTerminator());
  if (!old || yield.getNumOperands() != 1 || yield.getOperand(0) != sub->getResult(0) ||
      buffersOf(kernel, "input_buffers")[old.getArgNumber()] != buffersOf(kernel, "result_buffers")[0])
    return;
  // The factors must not be what is overwritten.
  for (Value factor : {plan.product.getLhs(), plan.product.getRhs()})
    if (bufferOfFactor(kernel, factor) == buffersOf(kernel, "result_buffers")[0])
      return;
  plan.scale = scale;
  plan.updated = old.getArgNumber();
  plan.prefix = sub->getResult(0);
}

/// The gradient of a relu or gelu_tanh that cuBLASLt computed.
void Planner::matchGradient(FusedOp kernel, ProductPlan &plan) {
  std::optional<ActivationGradient> gradient = activationGradient(plan.prefix);
  if (!gradient)
    return;
  auto saved = dyn_cast<OpResult>(kernel.getInputs()[gradient->saved.getArgNumber()]);
  auto forward = saved ? dyn_cast<FusedOp>(saved.getOwner()) : FusedOp();
  auto it = forward && forward->getBlock() == kernel->getBlock() ? plans.find(forward) : plans.end();
  if (it == plans.end() || !it->second.usesCublas || it->second.usesOwn != plan.usesOwn)
    return;
  ProductPlan &from = it->second;
  auto yield = cast<YieldOp>(forward.getBody().front().getTerminator());
  if (yield.getOperand(saved.getResultNumber()) != (gradient->isGelu ? from.saved : from.prefix))
    return;
  if (gradient->isGelu)
    plan.epilogue = DL_CUDA_EPILOGUE_DGELU;
  else {
    if (from.epilogue == DL_CUDA_EPILOGUE_RELU)
      from.epilogue = DL_CUDA_EPILOGUE_RELU_AUX;
    else if (from.epilogue == DL_CUDA_EPILOGUE_RELU_BIAS)
      from.epilogue = DL_CUDA_EPILOGUE_RELU_AUX_BIAS;
    else if (from.epilogue != DL_CUDA_EPILOGUE_RELU_AUX && from.epilogue != DL_CUDA_EPILOGUE_RELU_AUX_BIAS)
      return;
    plan.epilogue = DL_CUDA_EPILOGUE_DRELU;
  }
  plan.forward = forward;
  plan.prefix = gradient->result;
}

bool Planner::isVariable(int64_t buffer) const {
  auto table = function->getAttrOfType<ArrayAttr>("buffers");
  return cast<DictionaryAttr>(table[buffer]).getAs<StringAttr>("kind").getValue() == "variable";
}

bool Planner::writesVariables(FusedOp kernel, Value but) const {
  auto yield = cast<YieldOp>(kernel.getBody().front().getTerminator());
  for (auto [value, buffer] : llvm::zip(yield.getOperands(), buffersOf(kernel, "result_buffers")))
    if (value != but && isVariable(buffer))
      return true;
  return false;
}

/// Can a kernel as well run when another one, which comes later in the plan, has run? Nobody in between may read what it makes or overwrite what it reads.
bool Planner::mayWaitFor(FusedOp kernel, Operation *other) const {
  auto meets = [](ArrayRef<int64_t> some, ArrayRef<int64_t> others) { return llvm::any_of(some, [&](int64_t buffer) { return llvm::is_contained(others, buffer); }); };
  ArrayRef<int64_t> reads = buffersOf(kernel, "input_buffers"), writes = buffersOf(kernel, "result_buffers");
  for (Operation &op : *kernel->getBlock()) {
    if (isa<ForOp, IfOp>(op) && kernel->isBeforeInBlock(&op) && op.isBeforeInBlock(other))
      return false;
    if (!op.hasAttr("launch") || &op == kernel || launchOf(&op) < launchOf(kernel) || launchOf(&op) > launchOf(other))
      continue;
    ArrayRef<int64_t> otherReads = buffersOf(&op, "input_buffers"), otherWrites = buffersOf(&op, "result_buffers");
    if (meets(otherWrites, reads) || meets(otherWrites, writes) || meets(otherReads, writes))
      return false;
  }
  return true;
}

/// A kernel that sums a matrix over its rows and reduces nothing else, and can do so when a product has run.
FusedOp Planner::sumOverRows(Value gradient, Operation *product, ProductPlan &plan) const {
  for (OpOperand &use : gradient.getUses()) {
    auto kernel = dyn_cast<FusedOp>(use.getOwner());
    if (!kernel || kernel->getBlock() != product->getBlock() || servedSums.contains(kernel) || (launchOf(kernel) <= launchOf(product) && !mayWaitFor(kernel, product)))
      continue;
    SmallVector<Operation *> reductions;
    for (Operation &op : kernel.getBody().front())
      if (isa<ReductionOpInterface>(op) || isa<ContractionOpInterface>(op))
        reductions.push_back(&op);
    auto sum = reductions.size() == 1 ? dyn_cast<SumOp>(reductions.front()) : SumOp();
    if (!sum || sum.getAxes() != ArrayRef<int64_t>{0} || cast<RankedTensorType>(sum.getX().getType()).getRank() != 2 ||
        sum.getX() != kernel.getBody().getArgument(use.getOperandNumber()))
      continue;
    plan.sumOperand = sum.getResult();
    plan.sumWaits = launchOf(kernel) <= launchOf(product);
    return kernel;
  }
  return {};
}

/// cuBLASLt has epilogues for matrices of f32 alone.
static bool mayHaveEpilogue(const ProductPlan &plan) {
  auto type = cast<RankedTensorType>(plan.product->getResult(0).getType());
  return plan.usesCublas && type.getRank() == 2 && type.getElementType().isF32();
}

/// Sums over the rows of a gradient come with the product that makes it, or with one that reads it.
void Planner::matchSums() {
  for (auto &[op, plan] : plans) {
    auto kernel = cast<FusedOp>(op);
    if (!plan.usesCublas || !plan.forward)
      continue;
    auto yield = cast<YieldOp>(kernel.getBody().front().getTerminator());
    for (auto [value, result] : llvm::zip(yield.getOperands(), kernel.getResults()))
      if (value == plan.prefix && !plan.sum)
        plan.sum = sumOverRows(result, kernel, plan);
    if (plan.sum) {
      plan.epilogue = plan.epilogue == DL_CUDA_EPILOGUE_DGELU ? DL_CUDA_EPILOGUE_DGELU_BGRAD : DL_CUDA_EPILOGUE_DRELU_BGRAD;
      servedSums.insert(plan.sum);
    }
  }
  for (auto &[op, plan] : plans) {
    auto kernel = cast<FusedOp>(op);
    if (!mayHaveEpilogue(plan) || plan.epilogue != DL_CUDA_EPILOGUE_NONE || plan.scale)
      continue;
    if (plan.product.getLhsTransposed() && !plan.product.getRhsTransposed()) {
      // result = lhs^T rhs: k runs over the rows of both.
      if (auto rhs = dyn_cast<BlockArgument>(plan.product.getRhs()))
        if ((plan.sum = sumOverRows(kernel.getInputs()[rhs.getArgNumber()], kernel, plan)))
          plan.epilogue = DL_CUDA_EPILOGUE_BGRADB;
      if (auto lhs = dyn_cast<BlockArgument>(plan.product.getLhs()); lhs && !plan.sum)
        if ((plan.sum = sumOverRows(kernel.getInputs()[lhs.getArgNumber()], kernel, plan)))
          plan.epilogue = DL_CUDA_EPILOGUE_BGRADA;
    }
    if (plan.sum)
      servedSums.insert(plan.sum);
  }
}

ProductPlans Planner::run() {
  SmallVector<FusedOp> kernels;
  function.walk([&](FusedOp kernel) {
    if (matmulOf(kernel))
      kernels.push_back(kernel);
  });
  for (FusedOp kernel : kernels) {
    ProductPlan plan;
    plan.product = matmulOf(kernel);
    plan.prefix = plan.product.getResult();
    plan.usesCublas = options.gemm != GemmChoice::Own;
    plan.usesOwn = options.gemm != GemmChoice::Cublaslt;
    if (mayHaveEpilogue(plan)) {
      matchUpdate(kernel, plan);
      if (!plan.scale)
        matchForward(kernel, plan);
      if (plan.epilogue == DL_CUDA_EPILOGUE_NONE && !plan.scale)
        matchGradient(kernel, plan);
    }
    // An update like Adam's reads and writes several tensors of the product's shape: better while the product is in registers. In TF32 the product gains more.
    if (options.gemm == GemmChoice::Auto && !options.tf32 && !plan.forward && writesVariables(kernel, plan.prefix))
      plan.usesCublas = false;
    plans[kernel] = plan;
  }
  matchSums();
  return std::move(plans);
}

ProductPlans planProducts(FuncOp function, const CudaOptions &options) { return Planner(function, options).run(); }

} // namespace dlc::cuda
