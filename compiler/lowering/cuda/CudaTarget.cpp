//===- CudaTarget.cpp - planned dl to kernels and a list of launches, for an NVIDIA GPU -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A launch of the plan becomes one or more launches of the GPU's list:
//
//   loops, rows, columns   one kernel for all of them, which share the grid by ranges of blocks; two where a long reduction is cut into chunks
//   a product              cuBLASLt's call, and a kernel for what it has no epilogue for; and one or two kernels of the engine, epilogue inside
//   a convolution          one or two kernels of the engine
//   a check                one block
//   an extern function     the launch that its pragma asks for
//   attention              one kernel, its gradient two
//   a loop or branch       an entry before the launches inside of it; a kernel counts a loop's turns
//
// Where products can go both ways, both stand in the list, and what depends on the choice stands there twice.

#include "compiler/lowering/cuda/CudaTarget.h"
#include "compiler/lowering/DescribeModel.h"
#include "compiler/lowering/ExternWrapper.h"
#include "compiler/lowering/KernelWork.h"
#include "compiler/lowering/cpu/CpuTarget.h"
#include "compiler/lowering/cuda/Attention.h"
#include "compiler/lowering/cuda/Convolution.h"
#include "compiler/lowering/cuda/Gemm.h"
#include "compiler/lowering/cuda/KernelEmitter.h"
#include "compiler/lowering/cuda/Products.h"
#include "dialects/dl/DlExpr.h"
#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/LLVMIR/Transforms/Passes.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cuda {
#define GEN_PASS_DEF_CUDAEMITKERNELS
#define GEN_PASS_DEF_CUDAMARKKERNELS
#include "compiler/lowering/cuda/Passes.h.inc"

namespace {

/// Parameters that a kernel may have: 4 KB of them, with room for what is added to the estimate.
constexpr size_t mostParameters = 480;

/// A symbol's text with its own name taken out: kernels that say the same are one, the layers of predict those of loss and of step.
class KernelTable {
public:
  KernelTable(ModuleOp module, ModelDescription &description) : module(module), description(description) {}
  /// The symbol to launch for a kernel that is complete.
  std::string add(func::FuncOp kernel, uint32_t threads);

private:
  ModuleOp module;
  ModelDescription &description;
  llvm::StringMap<std::string> known;
};

class FunctionLowering {
public:
  FunctionLowering(ModuleOp module, FuncOp function, const CudaOptions &options, KernelTable &kernels, ModelDescription &description, FunctionDescription &to)
      : module(module), function(function), options(options), kernels(kernels), description(description), cuda(*to.cuda), b(function.getContext()) {
    hasChecks = function.walk([](CheckIndexOp) { return WalkResult::interrupt(); }).wasInterrupted();
  }
  LogicalResult run() {
    plans = planProducts(function, options);
    return lower(function.getBody().front());
  }

private:
  LogicalResult lower(Block &block);
  LogicalResult lowerFor(ForOp loop);
  LogicalResult lowerIf(IfOp branch);
  void addCount(int64_t buffer, AffineExpr start, Location loc);
  /// One fused kernel in a launch.
  struct Part {
    FusedOp kernel;
    KernelEmitter emitter;
    bool writesVariables;
    std::optional<int64_t> partials;
  };

  void lowerCheck(CheckIndexOp check);
  LogicalResult lowerExtern(FusedOp kernel, ExternOp call);
  void lowerAttention(FusedOp kernel, const Attention &attention);
  void lowerShared(ArrayRef<Operation *> nodes);
  void lowerParts(std::vector<Part> &parts, dl_cuda_when when);
  Part partWithSum(const ProductPlan &plan);
  void lowerProduct(FusedOp kernel, const ProductPlan &plan);
  void lowerCublas(FusedOp kernel, const ProductPlan &plan, dl_cuda_when when);
  /// A product as the engine takes it.
  struct EngineProduct {
    Operation *op;
    GemmShape shape;
    /// Says what the engine reads, but for the sizes.
    std::function<void(OpBuilder &, KernelAccess &, GemmOperands &)> setFactors;
    /// Where in the result a piece of the epilogue begins.
    std::function<ElementIndex(OpBuilder &, KernelAccess &, ValueRange batchRowCol)> resultIndex;
  };
  void lowerEngine(FusedOp kernel, const EngineProduct &product, dl_cuda_when when);
  void lowerOwn(FusedOp kernel, const ProductPlan &plan, dl_cuda_when when);
  void lowerConvolution(FusedOp kernel, ConvolutionOp op);
  std::pair<uint32_t, uint32_t> updateFactors(FusedOp kernel, const ProductPlan &plan, dl_cuda_when when);

  bool isVariable(int64_t buffer) const { return cuda.buffers[buffer].kind == DL_BUFFER_VARIABLE; }
  bool writesVariables(FusedOp kernel) const { return llvm::any_of(results(kernel), [&](int64_t buffer) { return isVariable(buffer); }); }
  static ArrayRef<int64_t> inputs(Operation *op) { return op->getAttrOfType<DenseI64ArrayAttr>("input_buffers").asArrayRef(); }
  static ArrayRef<int64_t> results(Operation *op) { return op->getAttrOfType<DenseI64ArrayAttr>("result_buffers").asArrayRef(); }
  /// A place in the arena from this launch of the plan on.
  uint32_t addBuffer(AffineExpr bytes);
  uint32_t addBuffer(AffineExpr elements, Type type) { return addBuffer(elements * static_cast<int64_t>(memoryType(type).getIntOrFloatBitWidth() / 8)); }
  std::string nextSymbol() { return (function.getSymName() + "_" + Twine(symbols++)).str(); }
  static std::string nameOf(Operation *op) {
    auto name = op->getAttrOfType<StringAttr>("name");
    return name ? name.getValue().str() : std::string("check_index");
  }
  void addLaunch(KernelAccess &access, uint32_t threads, AffineExpr blocks, dl_cuda_when when, const Twine &name, Location loc);

  ModuleOp module;
  FuncOp function;
  const CudaOptions &options;
  KernelTable &kernels;
  ModelDescription &description;
  CudaFunctionDescription &cuda;
  OpBuilder b;
  bool hasChecks;
  int64_t launch = 0; // of the plan
  unsigned symbols = 0;
  ProductPlans plans;
  /// What a product writes for its gradient, in rows of so many elements (bits).
  struct Auxiliary {
    uint32_t buffer;
    AffineExpr row;
  };
  DenseMap<Operation *, Auxiliary> auxiliaries; // by the kernel that writes them
  DenseMap<Operation *, uint32_t> sums;         // buffers of sums that come with a product, by the kernel that wants them
  std::map<int64_t, std::pair<uint32_t, uint32_t>> factors; // of updates, by the buffer of the scale
};
} // namespace

std::string KernelTable::add(func::FuncOp kernel, uint32_t threads) {
  std::string name = kernel.getSymName().str(), text;
  llvm::raw_string_ostream os(text);
  kernel.print(os, OpPrintingFlags().useLocalScope());
  // Memory that the kernel shares within a block is named after it.
  auto memory = [&] {
    SmallVector<LLVM::GlobalOp> found;
    for (auto global : module.getOps<LLVM::GlobalOp>())
      if (global.getSymName().contains(name))
        found.push_back(global);
    return found;
  };
  for (LLVM::GlobalOp global : memory())
    if (!SymbolTable::symbolKnownUseEmpty(global, kernel))
      global.print(os, OpPrintingFlags().useLocalScope());
  std::string key;
  StringRef rest = text;
  for (size_t at = rest.find(name); at != StringRef::npos; at = rest.find(name)) {
    key += rest.take_front(at).str() + "@";
    rest = rest.drop_front(at + name.size());
  }
  key += rest.str() + std::to_string(threads);
  auto [it, isNew] = known.try_emplace(key, name);
  if (isNew) {
    CudaKernelDescription kernelDescription;
    kernelDescription.symbol = name;
    kernelDescription.threads = threads;
    description.cuda->kernels.push_back(std::move(kernelDescription));
    return name;
  }
  SmallVector<LLVM::GlobalOp> unused = memory();
  llvm::erase_if(unused, [&](LLVM::GlobalOp global) { return SymbolTable::symbolKnownUseEmpty(global, kernel); });
  kernel.erase();
  for (LLVM::GlobalOp global : unused)
    global.erase();
  return it->second;
}

uint32_t FunctionLowering::addBuffer(AffineExpr bytes) {
  BufferDescription buffer;
  buffer.kind = DL_BUFFER_ARENA;
  buffer.bytes = Size(normalizeSize(bytes));
  buffer.first = buffer.last = launch;
  cuda.buffers.push_back(buffer);
  return cuda.buffers.size() - 1;
}

void FunctionLowering::addLaunch(KernelAccess &access, uint32_t threads, AffineExpr blocks, dl_cuda_when when, const Twine &name, Location loc) {
  CudaLaunchDescription to;
  to.kind = DL_CUDA_LAUNCH_KERNEL;
  to.when = when;
  to.parameters = access.parameters();
  to.symbol = kernels.add(access.finish(), threads);
  to.name = name.str();
  to.location = locationText(loc);
  to.grid[0] = Size(normalizeSize(blocks));
  cuda.launches.push_back(std::move(to));
}

void FunctionLowering::lowerCheck(CheckIndexOp check) {
  KernelAccess access(module, nextSymbol(), check.getLoc(), blockThreads);
  OpBuilder body = access.bodyBuilder();
  emitIndexCheck(check, describeFault(check, description), body, access);
  addLaunch(access, blockThreads, b.getAffineConstantExpr(1), DL_CUDA_ALWAYS, "check_index", check.getLoc());
  cuda.launches.back().work = workOf(check.getOperation());
}

/// Kernels that are independent of each other: one launch, whose blocks they share; another for the second halves of reductions in chunks.
void FunctionLowering::lowerParts(std::vector<Part> &parts, dl_cuda_when when) {
  for (Part &part : parts) {
    Type element;
    if (AffineExpr count = part.emitter.partialElements(element))
      part.partials = addBuffer(count, element);
  }
  for (unsigned half = 0; half < 2; ++half) {
    SmallVector<Part *> active;
    auto emit = [&] {
      if (active.empty())
        return;
      Location loc = active.front()->kernel.getLoc();
      KernelAccess access(module, nextSymbol(), loc, blockThreads);
      OpBuilder body = access.bodyBuilder();
      AffineExpr begin = b.getAffineConstantExpr(0);
      std::string name;
      for (Part *part : active) {
        AffineExpr count = part->emitter.blocks(half), end = normalizeSize(begin + count);
        Value condition;
        auto require = [&](Value other) { condition = condition ? arith::AndIOp::create(body, loc, condition, other).getResult() : other; };
        Value block = access.block();
        if (part != active.back())
          require(arith::CmpIOp::create(body, loc, arith::CmpIPredicate::ult, block, access.size(end)));
        if (part != active.front()) {
          require(arith::CmpIOp::create(body, loc, arith::CmpIPredicate::uge, block, access.size(begin)));
          block = arith::SubIOp::create(body, loc, block, access.size(begin));
        }
        if (hasChecks && part->writesVariables)
          require(access.hasNoFault());
        OpBuilder inner = condition ? scf::IfOp::create(body, loc, condition, /*withElseRegion=*/false).getThenBodyBuilder() : body;
        part->emitter.emit(half, inner, access, block, part->partials);
        begin = end;
        name += (name.empty() ? "" : "+") + nameOf(part->kernel) + (part->emitter.launchCount() > half + 1 ? part->emitter.firstName() : StringRef()).str();
      }
      addLaunch(access, blockThreads, begin, when, name, loc);
      // The first half reads everything; where a product comes before, its launch has counted the kernel.
      SmallVector<Operation *> counted;
      for (Part *part : active)
        counted.push_back(part->kernel);
      if (half == 0 && llvm::none_of(counted, [&](Operation *op) { return plans.contains(op); }))
        cuda.launches.back().work = workOf(counted);
      active.clear();
    };
    size_t parameters = 0;
    for (Part &part : parts) {
      if (half >= part.emitter.launchCount())
        continue;
      size_t own = inputs(part.kernel).size() + results(part.kernel).size() + 8;
      if (parameters + own > mostParameters) {
        emit();
        parameters = 0;
      }
      parameters += own;
      active.push_back(&part);
    }
    emit();
  }
}

/// A kernel to which a product brings a sum.
FunctionLowering::Part FunctionLowering::partWithSum(const ProductPlan &plan) {
  FusedOp kernel = plan.sum;
  uint32_t buffer = sums.lookup(kernel);
  cuda.buffers[buffer].last = launch;
  return {kernel, KernelEmitter(kernel, Given{plan.sumOperand, buffer}), writesVariables(kernel), {}};
}

void FunctionLowering::lowerShared(ArrayRef<Operation *> nodes) {
  // With cuBLASLt some find a sum that came with a product.
  bool differs = llvm::any_of(plans, [&](auto &entry) { return entry.second.sum && entry.second.usesOwn && llvm::is_contained(nodes, entry.second.sum.getOperation()); });
  for (dl_cuda_when when : {DL_CUDA_WITH_CUBLASLT, DL_CUDA_WITHOUT_CUBLASLT}) {
    if (when == DL_CUDA_WITHOUT_CUBLASLT && !differs)
      break;
    std::vector<Part> parts;
    for (Operation *node : nodes) {
      auto kernel = cast<FusedOp>(node);
      ProductPlan *source = nullptr;
      for (auto &[op, plan] : plans)
        if (plan.sum == kernel && when == DL_CUDA_WITH_CUBLASLT)
          source = &plan;
      if (!source)
        parts.push_back({kernel, KernelEmitter(kernel), writesVariables(kernel), {}});
      else if (!source->sumWaits)
        parts.push_back(partWithSum(*source));
    }
    lowerParts(parts, differs ? when : DL_CUDA_ALWAYS);
  }
}

/// Buffers with -scale, or 0 where a check found a fault, and with 1: what an update hands to cuBLASLt.
std::pair<uint32_t, uint32_t> FunctionLowering::updateFactors(FusedOp kernel, const ProductPlan &plan, dl_cuda_when when) {
  // Updates that share a rate share them, unless the rate is a variable that changes on the way.
  std::optional<int64_t> source;
  if (auto broadcast = plan.scale.getDefiningOp<BroadcastOp>())
    if (auto argument = dyn_cast<BlockArgument>(broadcast.getX()))
      if (int64_t buffer = inputs(kernel)[argument.getArgNumber()]; cuda.buffers[buffer].kind == DL_BUFFER_ARGUMENT)
        source = buffer;
  if (source)
    if (auto it = factors.find(*source); it != factors.end()) {
      cuda.buffers[it->second.first].last = cuda.buffers[it->second.second].last = launch;
      return it->second;
    }
  constexpr int64_t threads = 32;
  Location loc = kernel.getLoc();
  Type type = getElementTypeOrSelf(plan.product->getResult(0).getType());
  std::pair<uint32_t, uint32_t> buffers = {addBuffer(b.getAffineConstantExpr(1), type), addBuffer(b.getAffineConstantExpr(1), type)};
  KernelAccess access(module, nextSymbol(), loc, threads);
  OpBuilder body = access.bodyBuilder();
  Value zero = arith::ConstantIndexOp::create(body, loc, 0);
  Value isFirst = arith::CmpIOp::create(body, loc, arith::CmpIPredicate::eq, access.thread(), zero);
  OpBuilder o = scf::IfOp::create(body, loc, isFirst, /*withElseRegion=*/false).getThenBodyBuilder();
  ElementEmitter elements(kernel, [&](AffineExpr expr) { return access.size(normalizeSize(expr)); });
  std::function<void(Value)> bind = [&](Value value) {
    if (auto argument = dyn_cast<BlockArgument>(value))
      elements.setMemory(value, access.buffer(inputs(kernel)[argument.getArgNumber()], getElementTypeOrSelf(value.getType())));
    else
      for (Value operand : value.getDefiningOp()->getOperands())
        bind(operand);
  };
  bind(plan.scale);
  ElementIndex at;
  at.linear = zero;
  at.isFlat = true;
  Value alpha = arith::NegFOp::create(o, loc, elements.element(o, plan.scale, at, 1, {}));
  if (hasChecks)
    alpha = arith::SelectOp::create(o, loc, access.hasNoFault(), alpha, buildNumber(o, loc, type, 0.0));
  memref::StoreOp::create(o, loc, alpha, access.buffer(buffers.first, type), ValueRange{zero});
  memref::StoreOp::create(o, loc, buildNumber(o, loc, type, 1.0), access.buffer(buffers.second, type), ValueRange{zero});
  addLaunch(access, threads, b.getAffineConstantExpr(1), when, "update_factors", loc);
  if (source)
    factors[*source] = buffers;
  return buffers;
}

void FunctionLowering::lowerCublas(FusedOp kernel, const ProductPlan &plan, dl_cuda_when when) {
  MatmulOp product = plan.product;
  MLIRContext *context = b.getContext();
  Type type = getElementTypeOrSelf(product.getType());
  auto yield = cast<YieldOp>(kernel.getBody().front().getTerminator());
  SmallVector<AffineExpr> shape = sizesOf(product.getResult()), lhs = sizesOf(product.getLhs()), rhs = sizesOf(product.getRhs());
  int64_t rank = shape.size();
  AffineExpr m = shape[rank - 2], n = shape[rank - 1];

  CudaGemmDescription gemm;
  gemm.dtype = type.isF64() ? DL_F64 : DL_F32;
  gemm.tf32 = options.tf32 && type.isF32();
  gemm.transposeA = product.getLhsTransposed();
  gemm.transposeB = product.getRhsTransposed();
  gemm.epilogue = plan.epilogue;
  gemm.m = Size(normalizeSize(m));
  gemm.n = Size(normalizeSize(n));
  gemm.k = Size(normalizeSize(lhs[rank - (product.getLhsTransposed() ? 2 : 1)]));
  gemm.batch = Size(normalizeSize(productOf(ArrayRef(shape).drop_back(2), context)));
  auto matrix = [&](ArrayRef<AffineExpr> sizes) { return Size(normalizeSize(productOf(sizes.take_back(2), context))); };
  gemm.a = bufferOfFactor(kernel, product.getLhs());
  gemm.b = bufferOfFactor(kernel, product.getRhs());
  gemm.strideA = matrix(lhs);
  gemm.strideB = matrix(rhs);
  gemm.strideC = gemm.strideD = matrix(shape);
  if (plan.bias)
    gemm.bias = *plan.bias;
  if (plan.scale) {
    auto [alpha, beta] = updateFactors(kernel, plan, when);
    gemm.alpha = alpha;
    gemm.beta = beta;
    gemm.c = inputs(kernel)[plan.updated];
  }

  // Into its place, if that may be written whatever the checks said; else somewhere in between.
  std::optional<int64_t> place;
  for (auto [value, buffer] : llvm::zip(yield.getOperands(), results(kernel)))
    if (value == plan.prefix && (plan.scale || !hasChecks || !isVariable(buffer)) && buffer != gemm.a && buffer != gemm.b)
      place = buffer;
  gemm.d = place ? *place : addBuffer(productOf(shape, context), type);

  bool writesMask = plan.epilogue == DL_CUDA_EPILOGUE_RELU_AUX || plan.epilogue == DL_CUDA_EPILOGUE_RELU_AUX_BIAS;
  if (writesMask) {
    constexpr int64_t maskAlignment = 128; // bits, of a row
    AffineExpr row = normalizeSize(n.ceilDiv(maskAlignment) * maskAlignment);
    auxiliaries[kernel] = {addBuffer(m * row.floorDiv(8)), row};
  } else if (plan.saved) {
    AffineExpr row = plan.savedIn ? n : normalizeSize(n.ceilDiv(savedRowMultiple) * savedRowMultiple);
    auxiliaries[kernel] = {plan.savedIn ? static_cast<uint32_t>(*plan.savedIn) : addBuffer(m * row, type), row};
  }
  if (auto it = auxiliaries.find(plan.forward ? FusedOp(plan.forward) : kernel); it != auxiliaries.end()) {
    const Auxiliary &auxiliary = it->second;
    uint32_t &last = cuda.buffers[auxiliary.buffer].last;
    last = std::max<uint32_t>(last, launch);
    gemm.aux = auxiliary.buffer;
    gemm.auxLd = Size(normalizeSize(auxiliary.row));
  }
  if (plan.sum) {
    AffineExpr length = plan.epilogue == DL_CUDA_EPILOGUE_BGRADA ? m : n;
    gemm.bias = sums[plan.sum] = addBuffer(length, type);
  }

  CudaLaunchDescription launchTo;
  launchTo.kind = DL_CUDA_LAUNCH_GEMM;
  launchTo.when = when;
  launchTo.gemm = cuda.gemms.size();
  launchTo.name = nameOf(kernel);
  launchTo.location = locationText(product.getLoc());
  launchTo.work = workOf(kernel.getOperation());
  cuda.gemms.push_back(std::move(gemm));
  cuda.launches.push_back(std::move(launchTo));

  std::vector<Part> rest;
  SmallVector<Given> given = {{plan.prefix, cuda.gemms.back().d, place.has_value()}};
  if (plan.saved)
    given.push_back({plan.saved, cuda.gemms.back().aux, true});
  KernelEmitter emitter(kernel, given);
  if (emitter.isEmpty())
    return;
  rest.push_back({kernel, std::move(emitter), writesVariables(kernel), {}});
  lowerParts(rest, when);
}

/// The engine's kernels, with what is fused into the product in the epilogue of the last one.
void FunctionLowering::lowerEngine(FusedOp kernel, const EngineProduct &product, dl_cuda_when when) {
  Location loc = kernel.getLoc();
  GemmShape shape = product.shape;
  shape.tf32 = options.tf32 && shape.type.isF32();
  Gemm gemm(shape);
  std::optional<uint32_t> workspace;
  if (AffineExpr count = gemm.workspaceElements(); count != b.getAffineConstantExpr(0))
    workspace = addBuffer(count, shape.type);
  auto yield = cast<YieldOp>(kernel.getBody().front().getTerminator());
  bool guarded = hasChecks && writesVariables(kernel);

  for (unsigned part = 0; part < gemm.launchCount(); ++part) {
    KernelAccess access(module, nextSymbol(), loc, gemm.threads(part));
    access.setResidentBlocks(gemm.residentBlocks(part));
    OpBuilder body = access.bodyBuilder();
    GemmOperands operands;
    product.setFactors(body, access, operands);
    operands.m = access.size(shape.m);
    operands.n = access.size(shape.n);
    operands.k = access.size(shape.k);
    operands.batch = access.size(shape.batch);
    if (workspace)
      operands.workspace = access.buffer(*workspace, shape.type);
    bool isLast = part + 1 == gemm.launchCount();
    if (guarded && isLast)
      operands.fault = access.fault();
    ElementEmitter elements(kernel, [&](AffineExpr expr) { return access.size(normalizeSize(expr)); });
    SmallVector<Value> stores;
    if (isLast) {
      for (auto [argument, number] : llvm::zip(kernel.getBody().getArguments(), inputs(kernel)))
        if (llvm::any_of(argument.getUsers(), [&](Operation *user) { return user != product.op; }))
          elements.setMemory(argument, access.buffer(number, getElementTypeOrSelf(argument.getType())));
      for (auto [value, number] : llvm::zip(yield.getOperands(), results(kernel)))
        stores.push_back(access.buffer(number, getElementTypeOrSelf(value.getType())));
    }
    gemm.emit(part, body, loc, operands, [&](OpBuilder &e, Location, ValueRange batchRowCol, Value acc) {
      elements.pushScope();
      elements.setAvailable(product.op->getResult(0), acc);
      ElementIndex at = product.resultIndex(e, access, batchRowCol);
      if (gemm.lanes() > 1)
        elements.setVectorStart(at.isFlat ? at.linear : at.dims.back());
      SmallVector<Value> values;
      for (Value value : yield.getOperands())
        values.push_back(elements.element(e, computedValue(value), at, gemm.lanes(), {}));
      for (auto [value, memory, element] : llvm::zip(yield.getOperands(), stores, values))
        elements.storeResult(e, value, memory, at, element, {});
      elements.popScope();
    });
    addLaunch(access, gemm.threads(part), gemm.blocks(part), when, nameOf(kernel) + (isLast ? "" : "_chunks"), loc);
    if (part == 0)
      cuda.launches.back().work = workOf(kernel.getOperation());
  }
}

void FunctionLowering::lowerOwn(FusedOp kernel, const ProductPlan &plan, dl_cuda_when when) {
  MatmulOp product = plan.product;
  MLIRContext *context = b.getContext();
  auto type = cast<FloatType>(getElementTypeOrSelf(product.getType()));
  SmallVector<AffineExpr> full = sizesOf(product.getResult()), lhs = sizesOf(product.getLhs()), rhs = sizesOf(product.getRhs());
  int64_t rank = full.size();
  EngineProduct own;
  own.op = product;
  own.shape.type = type;
  own.shape.m = normalizeSize(full[rank - 2]);
  own.shape.n = normalizeSize(full[rank - 1]);
  own.shape.k = normalizeSize(lhs[rank - (product.getLhsTransposed() ? 2 : 1)]);
  own.shape.batch = normalizeSize(productOf(ArrayRef(full).drop_back(2), context));
  own.shape.lhsTransposed = product.getLhsTransposed();
  own.shape.rhsTransposed = product.getRhsTransposed();
  own.setFactors = [&](OpBuilder &, KernelAccess &access, GemmOperands &operands) {
    operands.lhs = access.buffer(bufferOfFactor(kernel, product.getLhs()), type);
    operands.rhs = access.buffer(bufferOfFactor(kernel, product.getRhs()), type);
    if (own.shape.batch != b.getAffineConstantExpr(1)) {
      operands.lhsBatchStride = access.size(normalizeSize(productOf(ArrayRef(lhs).take_back(2), context)));
      operands.rhsBatchStride = access.size(normalizeSize(productOf(ArrayRef(rhs).take_back(2), context)));
    }
  };
  own.resultIndex = [&](OpBuilder &e, KernelAccess &access, ValueRange batchRowCol) {
    Location loc = kernel.getLoc();
    ElementIndex at;
    Value batch = batchRowCol[0];
    for (int64_t axis = 0; axis < rank - 2; ++axis) {
      Value index = batch;
      if (axis < rank - 3) {
        Value inner = access.size(normalizeSize(productOf(ArrayRef(full).slice(axis + 1, rank - 3 - axis), context)));
        index = arith::DivUIOp::create(e, loc, batch, inner);
        batch = arith::SubIOp::create(e, loc, batch, arith::MulIOp::create(e, loc, index, inner));
      }
      at.dims.push_back(index);
    }
    at.dims.push_back(batchRowCol[1]);
    at.dims.push_back(batchRowCol[2]);
    return at;
  };
  lowerEngine(kernel, own, when);
}

void FunctionLowering::lowerConvolution(FusedOp kernel, ConvolutionOp op) {
  SmallVector<Operation *> epilogue;
  for (Operation &other : kernel.getBody().front())
    if (&other != op.getOperation())
      epilogue.push_back(&other);
  Convolution convolution(op, ElementEmitter::isFlat(epilogue));
  Type type = getElementTypeOrSelf(op.getType());
  EngineProduct product;
  product.op = op;
  product.shape = convolution.shape();
  product.setFactors = [&](OpBuilder &body, KernelAccess &access, GemmOperands &operands) {
    Value lhs = access.buffer(bufferOfFactor(kernel, op.getLhs()), type), rhs = access.buffer(bufferOfFactor(kernel, op.getRhs()), type);
    convolution.setFactors(body, kernel.getLoc(), operands, lhs, rhs);
  };
  product.resultIndex = [&](OpBuilder &e, KernelAccess &, ValueRange batchRowCol) { return convolution.resultIndex(e, kernel.getLoc(), batchRowCol); };
  lowerEngine(kernel, product, DL_CUDA_ALWAYS);
}

void FunctionLowering::lowerProduct(FusedOp kernel, const ProductPlan &plan) {
  bool both = plan.usesCublas && plan.usesOwn;
  if (plan.usesCublas) {
    dl_cuda_when when = both ? DL_CUDA_WITH_CUBLASLT : DL_CUDA_ALWAYS;
    lowerCublas(kernel, plan, when);
    if (plan.sum && plan.sumWaits) {
      // What it reads lives longer for it.
      for (int64_t buffer : inputs(plan.sum))
        cuda.buffers[buffer].last = std::max<uint32_t>(cuda.buffers[buffer].last, launch);
      std::vector<Part> parts;
      parts.push_back(partWithSum(plan));
      lowerParts(parts, when);
    }
  }
  if (plan.usesOwn)
    lowerOwn(kernel, plan, both ? DL_CUDA_WITHOUT_CUBLASLT : DL_CUDA_ALWAYS);
}

LogicalResult FunctionLowering::lowerExtern(FusedOp kernel, ExternOp call) {
  bool guarded = hasChecks && writesVariables(kernel);
  FailureOr<std::string> symbol = wrapForCuda(call, guarded, description);
  if (failed(symbol))
    return failure();
  auto &known = description.cuda->kernels;
  if (llvm::none_of(known, [&](const CudaKernelDescription &other) { return other.symbol == *symbol; })) {
    CudaKernelDescription kernelTo;
    kernelTo.symbol = *symbol;
    kernelTo.threads = call.getThreads();
    kernelTo.sharedBytes = call.getShared();
    known.push_back(std::move(kernelTo));
  }
  CudaLaunchDescription launchTo;
  launchTo.kind = DL_CUDA_LAUNCH_KERNEL;
  launchTo.symbol = *symbol;
  launchTo.name = nameOf(kernel);
  launchTo.location = locationText(kernel.getLoc());
  launchTo.grid[0] = Size(call.getBlocks().getResult(0));
  for (Value operand : call.getInputs())
    launchTo.parameters.push_back(CudaParameter::ofBuffer(inputs(kernel)[inputOfOperand(operand)]));
  for (int64_t buffer : results(kernel))
    launchTo.parameters.push_back(CudaParameter::ofBuffer(buffer));
  if (guarded)
    launchTo.parameters.push_back(CudaParameter::ofFault());
  for (AffineExpr size : passedSizes(call))
    launchTo.parameters.push_back(CudaParameter::ofSize(Size(size)));
  cuda.launches.push_back(std::move(launchTo));
  return success();
}

void FunctionLowering::lowerAttention(FusedOp kernel, const Attention &attention) {
  for (unsigned part = 0; part < attention.launchCount(); ++part) {
    KernelAccess access(module, nextSymbol(), kernel.getLoc(), Attention::threads);
    OpBuilder body = access.bodyBuilder();
    if (hasChecks && writesVariables(kernel))
      body = scf::IfOp::create(body, kernel.getLoc(), access.hasNoFault(), /*withElseRegion=*/false).getThenBodyBuilder();
    attention.emit(part, body, access);
    addLaunch(access, Attention::threads, attention.blocks(part), DL_CUDA_ALWAYS, nameOf(kernel) + (attention.launchCount() == 1 ? "" : part == 0 ? "_q" : "_kv"), kernel.getLoc());
    if (part + 1 == attention.launchCount())
      cuda.launches.back().work = workOf(kernel.getOperation());
  }
}

LogicalResult FunctionLowering::lower(Block &block) {
  SmallVector<Operation *> ops;
  for (Operation &op : block)
    if (op.hasAttr("launch") || isa<ForOp, IfOp>(op))
      ops.push_back(&op);
  auto numberOf = [](Operation *op) {
    auto number = op->getAttrOfType<IntegerAttr>("launch");
    return number ? number.getInt() : -1;
  };
  for (ArrayRef<Operation *> rest = ops; !rest.empty();) {
    Operation *first = rest.front();
    ArrayRef<Operation *> nodes = rest.take_while([&](Operation *op) { return numberOf(op) == numberOf(first); });
    if (isa<ForOp, IfOp>(first))
      nodes = rest.take_front();
    rest = rest.drop_front(nodes.size());
    if (auto loop = dyn_cast<ForOp>(first)) {
      if (failed(lowerFor(loop)))
        return failure();
      continue;
    }
    if (auto branch = dyn_cast<IfOp>(first)) {
      if (failed(lowerIf(branch)))
        return failure();
      continue;
    }
    launch = numberOf(first);
    auto kernel = dyn_cast<FusedOp>(first);
    ExternOp call = kernel ? externOf(kernel) : ExternOp();
    if (call && failed(lowerExtern(kernel, call)))
      return failure();
    if (call)
      continue;
    std::optional<Attention> attention = kernel ? Attention::of(kernel) : std::nullopt;
    if (attention)
      lowerAttention(kernel, *attention);
    else if (auto check = dyn_cast<CheckIndexOp>(first))
      lowerCheck(check);
    else if (auto it = plans.find(first); it != plans.end())
      lowerProduct(kernel, it->second);
    else if (auto convolutions = kernel.getBody().front().getOps<ConvolutionOp>(); !convolutions.empty())
      lowerConvolution(kernel, *convolutions.begin());
    else
      lowerShared(nodes);
  }
  return success();
}

/// A kernel of one thread that writes a number of turns, or adds 1 to what is there.
void FunctionLowering::addCount(int64_t buffer, AffineExpr start, Location loc) {
  constexpr int64_t threads = 32;
  KernelAccess access(module, nextSymbol(), loc, threads);
  OpBuilder body = access.bodyBuilder();
  Value zero = arith::ConstantIndexOp::create(body, loc, 0);
  Value isFirst = arith::CmpIOp::create(body, loc, arith::CmpIPredicate::eq, access.thread(), zero);
  OpBuilder o = scf::IfOp::create(body, loc, isFirst, /*withElseRegion=*/false).getThenBodyBuilder();
  Value memory = access.buffer(buffer, o.getI64Type());
  Value number = start ? arith::IndexCastOp::create(o, loc, o.getI64Type(), access.size(normalizeSize(start))).getResult()
                       : arith::AddIOp::create(o, loc, memref::LoadOp::create(o, loc, memory, ValueRange{zero}), arith::ConstantOp::create(o, loc, o.getI64IntegerAttr(1))).getResult();
  memref::StoreOp::create(o, loc, number, memory, ValueRange{zero});
  addLaunch(access, threads, b.getAffineConstantExpr(1), DL_CUDA_ALWAYS, start ? "first_turn" : "next_turn", loc);
}

/// The buffer that an attribute of a loop or branch names.
static uint32_t bufferNamed(Operation *op, StringRef attribute) {
  auto number = op->getAttrOfType<IntegerAttr>(attribute);
  return number ? number.getInt() : DL_CUDA_NO_BUFFER;
}

LogicalResult FunctionLowering::lowerFor(ForOp loop) {
  int64_t index = bufferNamed(loop, "index_buffer");
  AffineExpr first = loop.getFirst().getResult(0);
  addCount(index, first - 1, loop.getLoc());
  size_t place = cuda.launches.size();
  CudaLaunchDescription &entry = cuda.launches.emplace_back();
  entry.kind = DL_CUDA_LAUNCH_FOR;
  entry.name = loop.getLast() ? "for" : "while";
  entry.location = locationText(loop.getLoc());
  entry.grid[0] = Size(first);
  entry.isEndless = !loop.getLast();
  if (loop.getLast())
    entry.grid[1] = Size(loop.getLast()->getResult(0));
  for (StringRef name : {"limit_buffer", "condition_buffer"})
    entry.parameters.push_back(CudaParameter::ofBuffer(bufferNamed(loop, name)));
  if (auto pairs = loop->getAttrOfType<DenseI64ArrayAttr>("exchanged_buffers"))
    for (int64_t buffer : pairs.asArrayRef())
      entry.parameters.push_back(CudaParameter::ofBuffer(buffer));
  // What a turn has made is not there before or after it.
  auto outside = std::exchange(factors, {});
  addCount(index, {}, loop.getLoc());
  if (failed(lower(loop.getBody().front())))
    return failure();
  factors = std::move(outside);
  cuda.launches[place].inner = cuda.launches.size() - place - 1;
  return success();
}

LogicalResult FunctionLowering::lowerIf(IfOp branch) {
  size_t place = cuda.launches.size();
  CudaLaunchDescription &entry = cuda.launches.emplace_back();
  entry.kind = DL_CUDA_LAUNCH_IF;
  entry.name = "if";
  entry.location = locationText(branch.getLoc());
  entry.parameters.push_back(CudaParameter::ofBuffer(bufferNamed(branch, "condition_buffer")));
  uint32_t counts[2];
  for (auto [region, count] : llvm::zip(branch->getRegions(), counts)) {
    size_t begin = cuda.launches.size();
    auto outside = std::exchange(factors, {});
    if (failed(lower(region.front())))
      return failure();
    factors = std::move(outside);
    count = cuda.launches.size() - begin;
  }
  cuda.launches[place].inner = counts[0];
  cuda.launches[place].other = counts[1];
  return success();
}

//===--- the pass ---===//

/// The list as text, for tests.
static void printLaunches(const ModelDescription &description, llvm::raw_ostream &os) {
  static constexpr llvm::StringLiteral whens[] = {"", " with cublaslt", " without cublaslt"};
  static constexpr llvm::StringLiteral epilogues[] = {"none", "bias", "relu", "relu_bias", "relu_aux", "relu_aux_bias", "gelu", "gelu_bias",
                                                      "gelu_aux", "gelu_aux_bias", "drelu", "drelu_bgrad", "dgelu", "dgelu_bgrad", "bgrada", "bgradb"};
  auto number = [&](uint32_t buffer) { return buffer == DL_CUDA_NO_BUFFER ? std::string("none") : std::to_string(buffer); };
  for (const FunctionDescription &function : description.functions) {
    if (!function.cuda)
      continue;
    os << "function " << function.name << "\n";
    for (const CudaLaunchDescription &launch : function.cuda->launches) {
      if (launch.kind == DL_CUDA_LAUNCH_FOR) {
        os << "  " << launch.name << ": from " << launch.grid[0].toC(description.dims);
        if (!launch.isEndless)
          os << " to " << launch.grid[1].toC(description.dims);
        os << ", limit " << number(launch.parameters[0].buffer) << ", while " << number(launch.parameters[1].buffer) << ", exchanged";
        for (const CudaParameter &parameter : llvm::drop_begin(launch.parameters, 2))
          os << " " << parameter.buffer;
        os << ", " << launch.inner << " launches\n";
        continue;
      }
      if (launch.kind == DL_CUDA_LAUNCH_IF) {
        os << "  if " << launch.parameters[0].buffer << ": " << launch.inner << " launches, else " << launch.other << "\n";
        continue;
      }
      if (launch.kind == DL_CUDA_LAUNCH_GEMM) {
        const CudaGemmDescription &gemm = function.cuda->gemms[launch.gemm];
        os << "  gemm " << launch.name << whens[launch.when] << ": " << epilogues[gemm.epilogue] << ", a " << gemm.a << (gemm.transposeA ? "^T" : "") << ", b " << gemm.b
           << (gemm.transposeB ? "^T" : "") << ", c " << number(gemm.c) << ", d " << gemm.d << ", alpha " << number(gemm.alpha) << ", bias " << number(gemm.bias) << ", aux "
           << number(gemm.aux) << (gemm.tf32 ? ", tf32" : "") << "\n";
        continue;
      }
      os << "  kernel " << launch.symbol << " " << launch.name << whens[launch.when] << ": " << launch.grid[0].toC(description.dims) << " blocks,";
      for (const CudaParameter &parameter : launch.parameters) {
        if (parameter.kind == DL_CUDA_BUFFER)
          os << " " << parameter.buffer;
        else if (parameter.kind == DL_CUDA_SIZE)
          os << " " << parameter.size.toC(description.dims);
        else
          os << " fault";
      }
      os << "\n";
    }
  }
}

namespace {
struct CudaEmitKernels : impl::CudaEmitKernelsBase<CudaEmitKernels> {
  using CudaEmitKernelsBase::CudaEmitKernelsBase;
  CudaEmitKernels(const CudaOptions &options, ModelDescription &description) : chosen(options), description(&description) {}

  void runOnOperation() override {
    ModuleOp module = getOperation();
    ModelDescription unused;
    if (!chosen) {
      // By name, from dl-opt.
      chosen.emplace();
      chosen->tf32 = tf32;
      if (gemm == "own")
        chosen->gemm = GemmChoice::Own;
      else if (gemm == "cublaslt")
        chosen->gemm = GemmChoice::Cublaslt;
      else if (gemm != "auto") {
        module.emitError() << "products are computed by auto, own or cublaslt, not '" << gemm << "'";
        return signalPassFailure();
      }
    }
    ModelDescription &to = description ? *description : unused;
    auto models = module.getOps<ModelOp>();
    if (models.empty()) {
      module.emitError("there is no model to compile");
      return signalPassFailure();
    }
    ModelOp model = *models.begin();
    if (failed(describeVariables(model, to)))
      return signalPassFailure();
    to.cuda.emplace();
    KernelTable table(module, to);
    for (auto function : model.getBody().front().getOps<FuncOp>()) {
      FunctionDescription &functionTo = findFunction(function.getSymName(), to);
      functionTo.cuda.emplace();
      if (failed(describeFunction(function, functionTo)) || failed(describeBuffers(function, to, functionTo.cuda->buffers)))
        return signalPassFailure();
      functionTo.launchCount = function->getAttrOfType<IntegerAttr>("launches").getInt();
      if (failed(FunctionLowering(module, function, *chosen, table, to, functionTo).run()))
        return signalPassFailure();
      products += functionTo.cuda->gemms.size();
    }
    kernels += to.cuda->kernels.size();
    to.sortFunctions();
    if (launches)
      printLaunches(to, llvm::errs());
    model.erase();
    // Functions that kernels call are code of theirs: a call would pass everything through memory.
    for (auto function : module.getOps<func::FuncOp>()) {
      if (function->hasAttr("threads"))
        continue;
      function->setAttr("passthrough", ArrayAttr::get(&getContext(), {StringAttr::get(&getContext(), "alwaysinline"), StringAttr::get(&getContext(), "nounwind")}));
      function->setAttr("llvm.linkage", LLVM::LinkageAttr::get(&getContext(), LLVM::Linkage::Internal));
    }
  }
  std::optional<CudaOptions> chosen;
  ModelDescription *description = nullptr;
};

struct CudaMarkKernels : impl::CudaMarkKernelsBase<CudaMarkKernels> {
  void runOnOperation() override {
    Builder b(&getContext());
    // Lines of the program for reports, without its folder: an artefact's bytes don't depend on where it lies.
    getOperation().walk([&](Operation *op) {
      auto file = op->getLoc()->findInstanceOf<FileLineColLoc>();
      // A call that may be inlined must have a line, in a program that came without, too.
      if (!file && isa<LLVM::CallOp>(op))
        file = FileLineColLoc::get(&getContext(), "<unknown>", 0, 0);
      if (!file)
        return op->setLoc(UnknownLoc::get(&getContext()));
      StringRef name = file.getFilename().getValue();
      if (!name.starts_with("<"))
        name = name.drop_front(name.rfind('/') + 1); // all of it stays where there is no '/'
      op->setLoc(FileLineColLoc::get(&getContext(), name, file.getLine(), file.getColumn()));
    });
    for (auto function : getOperation().getOps<LLVM::LLVMFuncOp>()) {
      auto threads = function->getAttrOfType<IntegerAttr>("threads");
      if (!threads)
        continue;
      function->removeAttr("threads");
      function->setAttr(NVVM::NVVMDialect::getKernelFuncAttrName(), b.getUnitAttr());
      function->setAttr(NVVM::NVVMDialect::getReqntidAttrName(), b.getDenseI32ArrayAttr({static_cast<int32_t>(threads.getInt())}));
      if (Attribute blocks = function->removeAttr("resident_blocks"))
        function->setAttr(NVVM::NVVMDialect::getMinctasmAttrName(), blocks);
    }
  }
};
} // namespace

std::unique_ptr<Pass> createCudaEmitKernels(const CudaOptions &options, ModelDescription &description) { return std::make_unique<CudaEmitKernels>(options, description); }

void buildLlvmPipeline(OpPassManager &passes) {
  passes.addPass(cpu::createCpuExpandMath());
  passes.addPass(createCudaExpandRemainder());
  passes.addPass(createCSEPass());
  passes.addPass(createConvertVectorToLLVMPass());
  passes.addPass(createSCFToControlFlowPass());
  passes.addPass(createConvertMathToLLVMPass());
  passes.addPass(createFinalizeMemRefToLLVMConversionPass());
  passes.addPass(createArithToLLVMConversionPass());
  passes.addPass(createConvertFuncToLLVMPass());
  passes.addPass(createConvertControlFlowToLLVMPass());
  passes.addPass(createReconcileUnrealizedCastsPass());
  passes.addPass(createCudaMarkKernels());
  // Lines in PTX, and nothing else that a debugger would want: ptxas optimizes all the same.
  passes.addPass(LLVM::createDIScopeForLLVMFuncOpPass({LLVM::DIEmissionKind::DebugDirectivesOnly}));
}

} // namespace dlc::cuda
