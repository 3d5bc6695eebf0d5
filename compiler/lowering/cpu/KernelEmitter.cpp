//===- KernelEmitter.cpp - the loops of a fused kernel -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cpu/KernelEmitter.h"
#include "compiler/lowering/KernelWork.h"
#include "compiler/lowering/ExternWrapper.h"
#include "dialects/dl/DlExpr.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cpu {

/// Elements that a task should at least work on: some microseconds.
static constexpr int64_t usualElementsPerTask = 16384;
/// As many elements as one takes whose elementary function is computed.
static constexpr int64_t elementsPerFunction = 3;

static Value constantIndex(OpBuilder &b, Location loc, int64_t n) { return arith::ConstantIndexOp::create(b, loc, n); }
static Value add(OpBuilder &b, Location loc, Value x, Value y) { return arith::AddIOp::create(b, loc, x, y); }
static Value mul(OpBuilder &b, Location loc, Value x, Value y) { return arith::MulIOp::create(b, loc, x, y); }

//===--- the frame ---===//

OpBuilder FrameAccess::atStart() {
  OpBuilder b(entry->getParent());
  if (last)
    b.setInsertionPointAfter(last);
  else
    b.setInsertionPointToStart(entry);
  return b;
}

Value FrameAccess::field(unsigned number) {
  Value &value = fields[number];
  if (!value) {
    OpBuilder b = atStart();
    auto pointer = LLVM::LLVMPointerType::get(b.getContext());
    Value at = LLVM::GEPOp::create(b, loc, pointer, pointer, frame, ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(number)});
    auto load = LLVM::LoadOp::create(b, loc, pointer, at);
    last = load;
    value = load;
  }
  return value;
}

Value memrefOf(OpBuilder &b, Location loc, Value pointer, Type elementType) {
  MLIRContext *context = b.getContext();
  auto i64 = b.getI64Type();
  auto array = LLVM::LLVMArrayType::get(i64, 1);
  auto descriptor = LLVM::LLVMStructType::getLiteral(context, {pointer.getType(), pointer.getType(), i64, array, array});
  Value zero = LLVM::ConstantOp::create(b, loc, i64, b.getI64IntegerAttr(0));
  Value one = LLVM::ConstantOp::create(b, loc, i64, b.getI64IntegerAttr(1));
  Value size = LLVM::ConstantOp::create(b, loc, i64, b.getI64IntegerAttr(std::numeric_limits<int64_t>::max()));
  Value value = LLVM::PoisonOp::create(b, loc, descriptor);
  value = LLVM::InsertValueOp::create(b, loc, value, pointer, ArrayRef<int64_t>{0});
  value = LLVM::InsertValueOp::create(b, loc, value, pointer, ArrayRef<int64_t>{1});
  value = LLVM::InsertValueOp::create(b, loc, value, zero, ArrayRef<int64_t>{2});
  value = LLVM::InsertValueOp::create(b, loc, value, size, ArrayRef<int64_t>{3, 0});
  value = LLVM::InsertValueOp::create(b, loc, value, one, ArrayRef<int64_t>{4, 0});
  return UnrealizedConversionCastOp::create(b, loc, MemRefType::get(ShapedType::kDynamic, elementType), value).getResult(0);
}

Value FrameAccess::buffer(int64_t number, Type elementType) {
  Type stored = memoryType(elementType);
  Value &value = buffers[{number, const_cast<void *>(stored.getAsOpaquePointer())}];
  if (!value) {
    Value memory = pointer(number);
    OpBuilder b = atStart();
    value = memrefOf(b, loc, memory, stored);
    last = value.getDefiningOp();
  }
  return value;
}

Value FrameAccess::pointer(int64_t number) {
  Value &memory = pointers[number];
  if (memory)
    return memory;
  auto type = LLVM::LLVMPointerType::get(loc.getContext());
  if (takesBuffers) {
    taken.push_back(number);
    return memory = entry->addArgument(type, loc);
  }
  Value table = field(1);
  OpBuilder b = atStart();
  Value at = LLVM::GEPOp::create(b, loc, type, type, table, ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(number)});
  memory = LLVM::LoadOp::create(b, loc, type, at);
  last = memory.getDefiningOp();
  return memory;
}

Value FrameAccess::size(AffineExpr expr) {
  if (Value known = sizes.lookup(expr))
    return known;
  Value value;
  if (auto constant = dyn_cast<AffineConstantExpr>(expr)) {
    OpBuilder b = atStart();
    value = constantIndex(b, loc, constant.getValue());
  } else if (auto symbol = dyn_cast<AffineSymbolExpr>(expr)) {
    Value table = field(2);
    OpBuilder b = atStart();
    auto pointer = LLVM::LLVMPointerType::get(b.getContext());
    Value at = LLVM::GEPOp::create(b, loc, pointer, b.getI64Type(), table, ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(symbol.getPosition())});
    Value number = LLVM::LoadOp::create(b, loc, b.getI64Type(), at);
    value = arith::IndexCastOp::create(b, loc, b.getIndexType(), number);
  } else {
    auto binary = cast<AffineBinaryOpExpr>(expr);
    Value lhs = size(binary.getLHS()), rhs = size(binary.getRHS());
    OpBuilder b = atStart();
    switch (expr.getKind()) {
    case AffineExprKind::Add:
      value = add(b, loc, lhs, rhs);
      break;
    case AffineExprKind::Mul:
      value = mul(b, loc, lhs, rhs);
      break;
    case AffineExprKind::FloorDiv:
      value = arith::FloorDivSIOp::create(b, loc, lhs, rhs);
      break;
    case AffineExprKind::CeilDiv:
      value = arith::CeilDivSIOp::create(b, loc, lhs, rhs);
      break;
    default:
      value = arith::RemSIOp::create(b, loc, lhs, rhs);
      break;
    }
  }
  last = value.getDefiningOp();
  sizes[expr] = value;
  return value;
}

//===--- schedules ---===//

int64_t likelySize(AffineExpr size) {
  auto constant = dyn_cast<AffineConstantExpr>(size);
  return constant ? constant.getValue() : 4096;
}

/// Vectors that are alive at once while a kernel computes what it yields, each value after what it needs.
static int64_t mostLiveVectors(FusedOp kernel) {
  DenseMap<Value, unsigned> uses;
  int64_t live = 0, most = 0;
  // A number is in a register of its own, however long the vectors are.
  auto isVector = [](Value value) {
    Operation *def = value.getDefiningOp();
    auto indexing = dyn_cast_or_null<IndexingOpInterface>(def);
    bool isSpread = indexing && cast<RankedTensorType>(def->getOperand(0).getType()).getRank() == 0;
    return cast<RankedTensorType>(value.getType()).getRank() && !isSpread && !isa_and_nonnull<FillOp>(def);
  };
  std::function<void(Value)> compute = [&](Value value) {
    if (!isVector(value) || !uses.try_emplace(value, 0).second)
      return;
    Operation *def = value.getDefiningOp();
    if (def)
      for (Value operand : def->getOperands())
        compute(operand);
    most = std::max(most, ++live);
    if (def)
      for (Value operand : def->getOperands())
        if (isVector(operand) && ++uses[operand] == static_cast<unsigned>(std::distance(operand.use_begin(), operand.use_end())))
          --live;
  };
  for (Value value : kernel.getBody().front().getTerminator()->getOperands())
    compute(computedValue(value));
  return most;
}

KernelEmitter::KernelEmitter(FusedOp kernel, const CpuInfo &cpu) : kernel(kernel), cpu(cpu) {
  if ((call = externOf(kernel)) || (attention = Attention::of(kernel, cpu)))
    return;
  // Sizes and axes come from the op that says most: a product, a reduction, else any result.
  Block &body = kernel.getBody().front();
  Type widest;
  for (Operation &op : body) {
    if (isa<ContractionOpInterface>(op))
      contraction = &op;
    if (auto update = dyn_cast<ScatterOpInterface>(op))
      scatter = update;
    if (auto reduction = dyn_cast<ReductionOpInterface>(op)) {
      full = sizesOf(op.getOperand(0));
      reduced = llvm::to_vector(reduction.getReducedAxes());
    }
    for (Type type : op.getResultTypes()) {
      Type element = memoryType(getElementTypeOrSelf(type));
      // Scalars that are computed once do not decide about vectors.
      if (cast<RankedTensorType>(type).getRank() && (!widest || element.getIntOrFloatBitWidth() > widest.getIntOrFloatBitWidth()))
        widest = element;
    }
  }
  for (Type type : kernel.getInputs().getTypes())
    if (Type element = memoryType(getElementTypeOrSelf(type)); cast<RankedTensorType>(type).getRank() && (!widest || element.getIntOrFloatBitWidth() > widest.getIntOrFloatBitWidth()))
      widest = element;
  if (contraction)
    full = sizesOf(contraction->getResult(0));
  if (auto op = dyn_cast_or_null<ConvolutionOp>(contraction)) {
    if (op.getKind() != ConvolutionResult::weight)
      keeper = keeperOf(op.getRhs(), /*keepsForCalls=*/true);
    if (std::optional<Winograd> winograd = Winograd::of(op, cpu, keeper))
      convolution.emplace(*winograd);
    else if (std::optional<Pointwise> pointwise = Pointwise::of(op, cpu, keeper); pointwise && crossesRows())
      convolution.emplace(*pointwise);
    else
      convolution.emplace(Convolution(op, cpu, keeper));
    return;
  }
  if (contraction) {
    MatmulOp product = this->product();
    auto lhs = cast<RankedTensorType>(product.getLhs().getType());
    int64_t rank = full.size();
    SmallVector<AffineExpr> lhsSizes = sizesOf(lhs);
    auto known = [](AffineExpr size) {
      auto constant = dyn_cast<AffineConstantExpr>(size);
      return constant ? constant.getValue() : ShapedType::kDynamic;
    };
    GemmShape shape;
    shape.type = cast<FloatType>(lhs.getElementType());
    shape.m = known(full[rank - 2]);
    shape.n = known(full[rank - 1]);
    shape.k = known(lhsSizes[rank - (product.getLhsTransposed() ? 2 : 1)]);
    shape.batch = known(productOf(ArrayRef(full).drop_back(2), kernel.getContext()));
    shape.lhsTransposed = product.getLhsTransposed();
    shape.rhsTransposed = product.getRhsTransposed();
    // One of them: with both, the right one is as good. What few rows multiply is better read as it lies than kept a second time.
    auto areMany = [](int64_t size) { return !ShapedType::isDynamic(size) && size > Gemm::rowsForStreaming; };
    if ((keeper = keeperOf(product.getRhs(), areMany(shape.m))))
      shape.rhsFixed = true;
    else if ((keeper = keeperOf(product.getLhs(), areMany(shape.n))))
      shape.lhsFixed = true;
    gemm.emplace(cpu, shape);
    return;
  }
  if (full.empty() && reduced.empty() && kernel.getNumResults())
    full = sizesOf(computedValue(cast<YieldOp>(body.getTerminator()).getOperand(0)));
  if (scatter) {
    planScatter();
    return;
  }
  for (int64_t axis = 0; axis < static_cast<int64_t>(full.size()); ++axis)
    if (!llvm::is_contained(reduced, axis))
      kept.push_back(axis);

  flat = reduced.empty() && ElementEmitter::isFlat(kernel) && llvm::all_of(kernel.getResultTypes(), [&](Type type) { return sizesOf(cast<RankedTensorType>(type)) == full; });
  // Vectors of up to four registers: independent chains for the reductions, wide blocks for the columns.
  ElementEmitter::Vectors vectors = ElementEmitter::vectors(kernel);
  if (widest && !full.empty() && vectors.longest >= 4) {
    int64_t native = cpu.lanes(widest);
    int64_t size = flat ? likelySize(productOf(full, kernel.getContext())) : likelySize(full.back());
    lanes = std::min(native, vectors.longest);
    // A draw is hundreds of instructions for each register: several at once are code (40 KB for a normal) and compile time, and no faster. So are lanes that
    // come one by one.
    bool isLarge = vectors.areLaneByLane;
    kernel.walk([&](Operation *op) { isLarge |= isa<UniformOp, NormalOp, RandintOp>(op); });
    // What does not fit the registers goes to memory and back. Of a reduction the chains are worth it.
    const int64_t live = reduced.empty() ? mostLiveVectors(kernel) : 0;
    for (int64_t factor : {4, 2})
      if (!isLarge && factor * live <= cpu.vectorRegisters && lanes == native && vectors.longest >= factor * native && size >= factor * native && (size % (factor * native) == 0 || size >= 2 * factor * native))
        lanes = factor * native;
    if (size < 4) // shorter than any vector
      lanes = 1;
  }
  if (!flat && (kept.empty() ? false : kept.back() == static_cast<int64_t>(full.size()) - 1))
    segment = reduced.empty() ? std::max<int64_t>(lanes, 1024) : lanes;
}

Workspace KernelEmitter::workspace() const {
  if (!convolution && !gemm)
    return {};
  Workspace wanted{getElementTypeOrSelf(contraction->getOperand(0).getType()), {}, {}, keeperOfLaunchesOnce()};
  if (convolution) {
    wanted.elements = ask([&](auto &engine) { return engine.workspaceElements(imageCount()); });
    wanted.panelElements = ask([&](auto &engine) { return engine.panelElements(imageCount()); });
    return wanted;
  }
  int64_t rank = full.size();
  AffineExpr m = full[rank - 2], n = full[rank - 1], k = sizesOf(product().getLhs())[rank - (product().getLhsTransposed() ? 2 : 1)];
  wanted.elements = gemm->workspaceElements(m, n, k);
  wanted.panelElements = gemm->panelElements(m, n, k);
  return wanted;
}

int64_t KernelEmitter::tableBytes() const { return llvm::alignTo(ask([](auto &engine) { return engine.tableElements(); }) * static_cast<int64_t>(sizeof(int64_t)), DL_BUFFER_ALIGNMENT); }

int64_t KernelEmitter::scratchBytes() const {
  if (convolution)
    return keptBytes + tableBytes() + ask([](auto &engine) { return engine.scratchElements(); }) * (getElementTypeOrSelf(contraction->getResult(0)).getIntOrFloatBitWidth() / 8);
  return gemm ? keptBytes + gemm->scratchBytes() : attention ? attention->scratchBytes() : 0;
}

/// What tasks are made of: elements of a flat loop, rows of a reduction along the last axes, segments of the last axis otherwise.
AffineExpr KernelEmitter::unitsOfWork() const {
  MLIRContext *context = kernel.getContext();
  if (flat)
    return productOf(full, context);
  SmallVector<AffineExpr> sizes;
  for (int64_t axis : kept)
    sizes.push_back(full[axis]);
  if (segment) {
    AffineExpr last = sizes.pop_back_val();
    return productOf(sizes, context) * last.ceilDiv(segment) * slotRanges;
  }
  return productOf(sizes, context) * slotRanges;
}

int64_t KernelEmitter::unitsPerTask() const {
  const int64_t elementsPerTask = usualElementsPerTask / (1 + elementsPerFunction * elementaryFunctions(kernel));
  if (flat)
    return std::max<int64_t>(elementsPerTask / lanes, 1) * lanes;
  int64_t perUnit = segment ? std::min(segment, likelySize(full.back())) : 1;
  if (scatter)
    perUnit = std::min(perUnit * scatterLength() / slotRanges, elementsPerTask);
  for (int64_t axis : reduced)
    perUnit = std::min<int64_t>(perUnit * (isa<AffineConstantExpr>(full[axis]) ? std::max<int64_t>(likelySize(full[axis]), 1) : 128), elementsPerTask);
  return std::max<int64_t>(elementsPerTask / std::max<int64_t>(perUnit, 1), 1);
}

bool KernelEmitter::crossesRows() const {
  auto op = cast<ConvolutionOp>(contraction);
  SmallVector<Operation *> epilogue;
  for (Operation &other : kernel.getBody().front())
    if (&other != contraction)
      epilogue.push_back(&other);
  return op.getKind() == ConvolutionResult::weight ? ElementEmitter::isFlat(epilogue) : ElementEmitter::crossesRows(epilogue, op.getType(), 2);
}

AffineExpr KernelEmitter::imageCount() const { return sizesOf(cast<ConvolutionOp>(contraction).getTypeOf(ConvolutionResult::output)).front(); }

/// The kernel's input that an operand of a product is, through ops that only say under which shape it lies.
static unsigned inputOf(Value operand) {
  while (Operation *def = operand.getDefiningOp())
    operand = def->getOperand(0);
  return cast<BlockArgument>(operand).getArgNumber();
}

Value KernelEmitter::operandMemory(FrameAccess &frame, Value value) const {
  int64_t number = kernel->getAttrOfType<DenseI64ArrayAttr>("input_buffers")[inputOf(value)];
  return frame.buffer(number, getElementTypeOrSelf(value.getType()));
}

Value KernelEmitter::memoryNamed(FrameAccess &frame, StringRef attribute, Type element) const {
  auto buffer = kernel->getAttrOfType<IntegerAttr>(attribute);
  return buffer ? frame.buffer(buffer.getInt(), element) : Value();
}

Operation *KernelEmitter::keeperOf(Value operand, bool keepsForCalls) const {
  Value input = kernel.getInputs()[inputOf(operand)];
  if (auto function = kernel->getParentOfType<FuncOp>(); keepsForCalls && isa_and_nonnull<ReadOp, ConstantOp>(input.getDefiningOp()) && function.isConst())
    return function;
  Region *home = input.getParentRegion();
  Operation *found = nullptr;
  for (auto loop = kernel->getParentOfType<ForOp>(); loop && !loop.getBody().isAncestor(home); loop = loop->getParentOfType<ForOp>())
    found = loop;
  return found;
}

GemmOperands KernelEmitter::gemmOperands(OpBuilder &b, FrameAccess &frame) const {
  GemmOperands operands;
  MatmulOp product = this->product();
  MLIRContext *context = b.getContext();
  int64_t rank = full.size();
  SmallVector<AffineExpr> lhs = sizesOf(product.getLhs()), rhs = sizesOf(product.getRhs());
  operands.lhs = operandMemory(frame, product.getLhs());
  operands.rhs = operandMemory(frame, product.getRhs());
  operands.m = frame.size(full[rank - 2]);
  operands.n = frame.size(full[rank - 1]);
  operands.k = frame.size(lhs[rank - (product.getLhsTransposed() ? 2 : 1)]);
  operands.batch = frame.size(productOf(ArrayRef(full).drop_back(2), context));
  operands.lhsBatchStride = frame.size(productOf(ArrayRef(lhs).take_back(2), context));
  operands.rhsBatchStride = frame.size(productOf(ArrayRef(rhs).take_back(2), context));
  operands.workspace = memoryNamed(frame, "workspace_buffer", getElementTypeOrSelf(product.getLhs().getType()));
  operands.panels = memoryNamed(frame, "panels_buffer", getElementTypeOrSelf(product.getLhs().getType()));
  // A variable that other kernels read, perhaps on other cores; its moments are this kernel's alone.
  ArrayRef<int64_t> written = kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers");
  auto isReadElsewhere = [&](int64_t buffer) {
    bool found = false;
    kernel->getParentOfType<FuncOp>().walk([&](Operation *other) {
      auto inputs = other->getAttrOfType<DenseI64ArrayAttr>("input_buffers");
      found |= other != kernel && inputs && llvm::is_contained(inputs.asArrayRef(), buffer);
    });
    return found;
  };
  for (auto [argument, number] : llvm::zip(kernel.getBody().getArguments(), kernel->getAttrOfType<DenseI64ArrayAttr>("input_buffers").asArrayRef())) {
    auto type = cast<RankedTensorType>(argument.getType());
    if (llvm::is_contained(written, number) && type.getElementType() == product.getType().getElementType() && sizesOf(type) == full && isReadElsewhere(number))
      operands.updated.push_back(operandMemory(frame, argument));
  }
  return operands;
}

Value KernelEmitter::tasks(unsigned launch, OpBuilder &b, FrameAccess &frame) const {
  Location loc = kernel.getLoc();
  if (convolution)
    return ask([&](auto &engine) { return engine.tasks(launch, b, loc, frame.size(imageCount())); });
  if (gemm)
    return gemm->tasks(launch, b, loc, gemmOperands(b, frame));
  if (attention)
    return frame.size(attention->tasks());
  if (call)
    return frame.size(call.getParallel() ? call.getParallel()->getResult(0) : b.getAffineConstantExpr(1));
  return frame.size(normalizeSize(unitsOfWork()).ceilDiv(unitsPerTask()));
}

void KernelEmitter::emit(unsigned launch, OpBuilder &b, FrameAccess &frame, Value begin, Value end, Value scratch) const {
  if (gemm || convolution)
    return emitProduct(launch, b, frame, begin, end, scratch);
  if (attention)
    return attention->emit(b, frame, begin, end, scratch);
  if (call)
    return emitExtern(b, frame, begin, end);
  ElementEmitter elements(kernel, [&](AffineExpr expr) { return frame.size(expr); });
  for (auto [argument, number] : llvm::zip(kernel.getBody().getArguments(), kernel->getAttrOfType<DenseI64ArrayAttr>("input_buffers").asArrayRef()))
    elements.setMemory(argument, frame.buffer(number, getElementTypeOrSelf(argument.getType())));
  elements.prepareScalars(b);
  // Tasks are neighbours: one range of units.
  Location loc = kernel.getLoc();
  Value per = constantIndex(b, loc, unitsPerTask()), all = frame.size(normalizeSize(unitsOfWork()));
  Value from = mul(b, loc, begin, per), to = arith::MinUIOp::create(b, loc, mul(b, loc, end, per), all);
  if (flat)
    emitFlat(b, frame, elements, from, to);
  else if (scatter)
    emitScatter(b, frame, elements, from, to);
  else
    emitWalk(b, frame, elements, from, to);
}

/// Which lanes of a vector that begins at `at` lie before `end`.
static Value tailMask(OpBuilder &b, Location loc, Value at, Value end, int64_t lanes) {
  Value left = arith::SubIOp::create(b, loc, end, at);
  return vector::CreateMaskOp::create(b, loc, VectorType::get(lanes, b.getI1Type()), left);
}

Carried vectorLoop(OpBuilder &b, Location loc, ElementEmitter &elements, Value from, Value to, int64_t lanes, bool divides, ValueRange carried, VectorBody body) {
  Value step = constantIndex(b, loc, lanes);
  Value end = to;
  if (lanes > 1 && !divides) {
    Value length = arith::SubIOp::create(b, loc, to, from);
    Value whole = mul(b, loc, arith::DivUIOp::create(b, loc, length, step), step);
    end = add(b, loc, from, whole);
  }
  auto loop = scf::ForOp::create(b, loc, from, end, step, carried);
  {
    OpBuilder inner = OpBuilder::atBlockBegin(loop.getBody());
    elements.pushScope();
    Carried next = body(inner, loop.getInductionVar(), Value(), loop.getRegionIterArgs());
    elements.popScope();
    if (loop.getBody()->empty() || !loop.getBody()->back().hasTrait<OpTrait::IsTerminator>())
      scf::YieldOp::create(inner, loc, next);
  }
  Carried result(loop.getResults());
  if (lanes == 1 || divides)
    return result;
  Value isLeft = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, end, to);
  auto tail = scf::IfOp::create(b, loc, ValueRange(result).getTypes(), isLeft, /*withElseRegion=*/!result.empty());
  OpBuilder inner = OpBuilder::atBlockBegin(tail.thenBlock());
  elements.pushScope();
  Value mask = tailMask(inner, loc, end, to, lanes);
  Carried next = body(inner, end, mask, result);
  elements.popScope();
  if (!result.empty()) {
    scf::YieldOp::create(inner, loc, next);
    OpBuilder no = tail.getElseBodyBuilder();
    scf::YieldOp::create(no, loc, result);
    return Carried(tail.getResults());
  }
  return result;
}

/// Evaluates, outside the inner loop, what does not change within it: operands of broadcasts whose indices are all in `fixed`.
static void hoist(OpBuilder &b, FusedOp kernel, FrameAccess &frame, ElementEmitter &elements, const DenseMap<Operation *, int64_t> &stage, int64_t now, const DenseMap<int64_t, Value> &fixed,
                  ArrayRef<AffineExpr> full, int64_t vectorAxis, int64_t lanes, Value mask) {
  for (Operation &op : kernel.getBody().front()) {
    auto indexing = dyn_cast<IndexingOpInterface>(op);
    if (!indexing || sizesOf(op.getResult(0)) != full)
      continue;
    // Where to look for a row.
    if (op.getNumOperands() > 1 && indexing.keepsInnermost() && fixed.size() + 1 >= full.size()) {
      SmallVector<Value> dims;
      for (size_t axis = 0; axis < full.size(); ++axis)
        dims.push_back(fixed.lookup(axis));
      if (!dims.back())
        dims.back() = constantIndex(b, op.getLoc(), 0);
      Value exists;
      if (llvm::all_of(dims, [](Value dim) { return static_cast<bool>(dim); }))
        indexing.lookUpIndices(b, op.getLoc(), dims, [&](AffineExpr expr) { return frame.size(expr); }, [&](Value tensor, ValueRange at) { return elements.indexElement(b, tensor, at); }, exists);
      continue;
    }
    Operation *def = op.getOperand(0).getDefiningOp();
    if (def && stage.lookup(def) > now)
      continue;
    std::optional<SmallVector<int64_t>> map = indexing.getAxisMap();
    if (!map || map->size() == full.size() || !llvm::all_of(*map, [&](int64_t axis) { return fixed.count(axis); }))
      continue;
    ElementIndex at;
    for (int64_t axis : *map)
      at.dims.push_back(fixed.lookup(axis));
    bool isVector = !map->empty() && map->back() == vectorAxis;
    elements.element(b, op.getOperand(0), at, isVector ? lanes : 1, isVector ? mask : Value());
  }
}

void KernelEmitter::emitFlat(OpBuilder &b, FrameAccess &frame, ElementEmitter &elements, Value from, Value to) const {
  Location loc = kernel.getLoc();
  hoist(b, kernel, frame, elements, DenseMap<Operation *, int64_t>(), 0, DenseMap<int64_t, Value>(), full, -1, 1, {});
  auto yield = cast<YieldOp>(kernel.getBody().front().getTerminator());
  auto buffers = kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers").asArrayRef();
  auto total = dyn_cast<AffineConstantExpr>(normalizeSize(unitsOfWork()));
  bool divides = total && total.getValue() % lanes == 0;
  vectorLoop(b, loc, elements, from, to, lanes, divides, {}, [&](OpBuilder &b, Value at, Value mask, ValueRange) {
    ElementIndex index;
    index.linear = at;
    index.isFlat = true;
    // All loads come before all stores: a result may lie where an operand did.
    SmallVector<Value> results;
    for (Value value : yield.getOperands())
      results.push_back(elements.element(b, computedValue(value), index, lanes, mask));
    for (auto [value, buffer, result] : llvm::zip(yield.getOperands(), buffers, results))
      elements.storeResult(b, value, frame.buffer(buffer, getElementTypeOrSelf(value.getType())), index, result, mask);
    return Carried();
  });
}

//===--- reductions ---===//

/// A vector's lanes combined in a fixed tree: halves with halves. `index` goes along where the reduction keeps it.
static void combineLanes(OpBuilder &b, Location loc, ReductionOpInterface op, Value &value, Value &index) {
  auto half = [&](Value v, int64_t offset, int64_t count) -> Value {
    return vector::ExtractStridedSliceOp::create(b, loc, v, ArrayRef<int64_t>{offset}, ArrayRef<int64_t>{count}, ArrayRef<int64_t>{1});
  };
  for (int64_t lanes = cast<VectorType>(value.getType()).getNumElements(); lanes > 1; lanes /= 2) {
    Value a = half(value, 0, lanes / 2), c = half(value, lanes / 2, lanes / 2);
    if (index) {
      Value ai = half(index, 0, lanes / 2), ci = half(index, lanes / 2, lanes / 2);
      // Of equals the one with the smaller index.
      Value second = buildBeats(b, loc, op, a, c), first = buildBeats(b, loc, op, c, a);
      Value earlier = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::slt, ci, ai);
      Value neither = arith::AndIOp::create(b, loc, (!(ScalarExpr(b, loc, second) | ScalarExpr(b, loc, first))).value, earlier);
      Value takeSecond = arith::OrIOp::create(b, loc, second, neither);
      value = arith::SelectOp::create(b, loc, takeSecond, c, a);
      index = arith::SelectOp::create(b, loc, takeSecond, ci, ai);
    } else {
      value = op.buildCombine(b, loc, a, c);
    }
  }
  value = vector::ExtractOp::create(b, loc, value, ArrayRef<int64_t>{0});
  if (index)
    index = vector::ExtractOp::create(b, loc, index, ArrayRef<int64_t>{0});
}

void KernelEmitter::emitWalk(OpBuilder &b, FrameAccess &frame, ElementEmitter &elements, Value from, Value to) const {
  Location loc = kernel.getLoc();
  Block &body = kernel.getBody().front();
  auto yield = cast<YieldOp>(body.getTerminator());
  auto buffers = kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers").asArrayRef();
  int64_t rank = full.size(), lastAxis = rank - 1;
  bool reducesLast = segment == 0 && !reduced.empty() && reduced.back() == lastAxis;

  // In which pass over the reduced axes can a value be computed?
  DenseMap<Operation *, int64_t> stage;
  SmallVector<SmallVector<ReductionOpInterface>> passes;
  for (Operation &op : body) {
    int64_t s = 0;
    for (Value operand : op.getOperands())
      if (Operation *def = operand.getDefiningOp())
        s = std::max(s, stage.lookup(def));
    if (auto reduction = dyn_cast<ReductionOpInterface>(op)) {
      if (static_cast<int64_t>(passes.size()) <= s)
        passes.resize(s + 1);
      passes[s].push_back(reduction);
      ++s;
    }
    stage[&op] = s;
  }
  auto stageOf = [&](Value yielded) {
    Value value = computedValue(yielded);
    return value.getDefiningOp() ? stage.lookup(value.getDefiningOp()) : int64_t(0);
  };
  // Whole results are written in the last pass, when nobody needs an operand that they may overwrite any more.
  int64_t storePass = static_cast<int64_t>(passes.size()) - 1;
  bool storesFull = false;
  auto isFull = [&](Value value) { return sizesOf(computedValue(value)) == full; };
  for (Value value : yield.getOperands())
    if (isFull(value) && !reduced.empty()) {
      storesFull = true;
      storePass = std::max(storePass, stageOf(value));
    }
  int64_t passCount = std::max<int64_t>(passes.size(), storesFull ? storePass + 1 : 0);
  passes.resize(passCount);

  // A kept index: outer axes from the unit's number; the last one, if kept, in vectors along a segment.
  SmallVector<int64_t> outer(kept);
  if (segment)
    outer.pop_back();
  auto units = scf::ForOp::create(b, loc, from, to, constantIndex(b, loc, 1));
  OpBuilder u = OpBuilder::atBlockBegin(units.getBody());
  elements.pushScope();
  Value unit = units.getInductionVar(), segmentStart, segmentEnd;
  if (segment) {
    AffineExpr count = full[lastAxis].ceilDiv(segment);
    Value outerUnit = unit, number = unit;
    if (auto constant = dyn_cast<AffineConstantExpr>(count); constant && constant.getValue() == 1) {
      number = constantIndex(u, loc, 0);
    } else {
      outerUnit = arith::DivUIOp::create(u, loc, unit, frame.size(count));
      number = arith::SubIOp::create(u, loc, unit, mul(u, loc, outerUnit, frame.size(count)));
    }
    unit = outerUnit;
    segmentStart = mul(u, loc, number, constantIndex(u, loc, segment));
    segmentEnd = arith::MinUIOp::create(u, loc, add(u, loc, segmentStart, constantIndex(u, loc, segment)), frame.size(full[lastAxis]));
  }
  DenseMap<int64_t, Value> fixed;
  for (auto [i, axis] : llvm::enumerate(outer)) {
    SmallVector<AffineExpr> rest;
    for (int64_t other : ArrayRef(outer).drop_front(i + 1))
      rest.push_back(full[other]);
    AffineExpr inner = productOf(rest, b.getContext());
    Value index = unit;
    if (i + 1 < outer.size()) {
      index = arith::DivUIOp::create(u, loc, unit, frame.size(inner));
      unit = arith::SubIOp::create(u, loc, unit, mul(u, loc, index, frame.size(inner)));
    }
    fixed[axis] = index;
  }

  // What happens at one kept index: `mask` is of the kept last axis; `width` elements of it at once.
  auto atPoint = [&](OpBuilder &p, DenseMap<int64_t, Value> fixed, int64_t width, Value mask) {
    auto keptIndex = [&] {
      ElementIndex index;
      for (int64_t axis : kept)
        index.dims.push_back(fixed.lookup(axis));
      return index;
    };
    for (int64_t pass = 0; pass < passCount; ++pass) {
      hoist(p, kernel, frame, elements, stage, pass, fixed, full, segment ? lastAxis : -1, width, mask);
      // Accumulators: vectors along the reduced last axis or along the kept one.
      int64_t accumulatorLanes = reducesLast ? lanes : width;
      Carried start;
      for (ReductionOpInterface reduction : passes[pass]) {
        Type element = getElementTypeOrSelf(reduction->getOperand(0).getType());
        Type type = accumulatorLanes == 1 ? element : Type(VectorType::get(accumulatorLanes, element));
        start.push_back(buildNumber(p, loc, type, reduction.getNeutral(element)));
        if (reduction.keepsIndex()) {
          Type i32 = p.getI32Type();
          start.push_back(buildNumber(p, loc, accumulatorLanes == 1 ? i32 : Type(VectorType::get(accumulatorLanes, i32)), 0.0));
        }
      }
      auto step = [&](OpBuilder &s, const DenseMap<int64_t, Value> &place, Value number, int64_t stepLanes, Value stepMask, ValueRange carried) {
        ElementIndex at;
        for (int64_t axis = 0; axis < rank; ++axis)
          at.dims.push_back(place.lookup(axis));
        Carried next;
        unsigned slot = 0;
        for (ReductionOpInterface reduction : passes[pass]) {
          Value value = elements.element(s, reduction->getOperand(0), at, stepLanes, stepMask);
          Value before = carried[slot], after = reduction.buildCombine(s, loc, before, value);
          if (reduction.keepsIndex()) {
            Value better = buildBeats(s, loc, reduction, before, value);
            if (stepMask)
              better = arith::AndIOp::create(s, loc, better, stepMask);
            Value i32 = arith::IndexCastOp::create(s, loc, s.getI32Type(), number);
            Value index = i32;
            if (stepLanes > 1) {
              auto type = VectorType::get(stepLanes, s.getI32Type());
              index = vector::BroadcastOp::create(s, loc, type, i32);
              if (reducesLast) {
                SmallVector<Attribute> ramp;
                for (int64_t lane = 0; lane < stepLanes; ++lane)
                  ramp.push_back(s.getI32IntegerAttr(lane));
                index = arith::AddIOp::create(s, loc, index, arith::ConstantOp::create(s, loc, DenseElementsAttr::get(type, ramp)));
              }
            }
            next.push_back(arith::SelectOp::create(s, loc, better, value, before));
            next.push_back(arith::SelectOp::create(s, loc, better, index, carried[slot + 1]));
            slot += 2;
            continue;
          }
          if (stepMask && reducesLast)
            after = arith::SelectOp::create(s, loc, stepMask, after, before);
          next.push_back(after);
          ++slot;
        }
        if (pass == storePass && storesFull) {
          SmallVector<Value> results;
          for (Value value : yield.getOperands())
            results.push_back(isFull(value) ? elements.element(s, computedValue(value), at, stepLanes, stepMask) : Value());
          for (auto [value, buffer, result] : llvm::zip(yield.getOperands(), buffers, results))
            if (result)
              elements.storeResult(s, value, frame.buffer(buffer, getElementTypeOrSelf(value.getType())), at, result, stepMask);
        }
        return next;
      };
      // The nest over the reduced axes; `number` counts their elements in row-major order.
      std::function<Carried(OpBuilder &, size_t, DenseMap<int64_t, Value>, Value, ValueRange)> nest = [&](OpBuilder &n, size_t depth, DenseMap<int64_t, Value> place, Value number,
                                                                                                          ValueRange carried) -> Carried {
        if (depth == reduced.size())
          return step(n, place, number ? number : constantIndex(n, loc, 0), width, mask, carried);
        int64_t axis = reduced[depth];
        Value zero = constantIndex(n, loc, 0), size = frame.size(full[axis]);
        auto numberAt = [&](OpBuilder &o, Value index) { return number ? add(o, loc, mul(o, loc, number, size), index) : index; };
        if (reducesLast && depth + 1 == reduced.size()) {
          auto constant = dyn_cast<AffineConstantExpr>(full[axis]);
          bool divides = constant && constant.getValue() % lanes == 0;
          return vectorLoop(n, loc, elements, zero, size, lanes, divides, carried, [&](OpBuilder &o, Value at, Value tail, ValueRange inner) {
            DenseMap<int64_t, Value> here = place;
            here[axis] = at;
            return step(o, here, numberAt(o, at), lanes, tail, inner);
          });
        }
        auto loop = scf::ForOp::create(n, loc, zero, size, constantIndex(n, loc, 1), carried);
        OpBuilder o = OpBuilder::atBlockBegin(loop.getBody());
        elements.pushScope();
        DenseMap<int64_t, Value> here = place;
        here[axis] = loop.getInductionVar();
        Carried next = nest(o, depth + 1, here, numberAt(o, loop.getInductionVar()), loop.getRegionIterArgs());
        elements.popScope();
        if (!carried.empty())
          scf::YieldOp::create(o, loc, next);
        return Carried(loop.getResults());
      };
      Carried totals = nest(p, 0, fixed, Value(), start);
      unsigned slot = 0;
      for (ReductionOpInterface reduction : passes[pass]) {
        Value value = totals[slot++], index = reduction.keepsIndex() ? totals[slot++] : Value();
        if (reducesLast && lanes > 1)
          combineLanes(p, loc, reduction, value, index);
        elements.setAvailable(reduction->getResult(0), index ? index : value);
      }
    }
    // Results of the kept shape. All are computed before any is stored.
    SmallVector<Value> results;
    for (Value value : yield.getOperands())
      results.push_back(isFull(value) && !reduced.empty() ? Value() : elements.element(p, computedValue(value), keptIndex(), segment ? width : 1, mask));
    for (auto [value, buffer, result] : llvm::zip(yield.getOperands(), buffers, results))
      if (result)
        elements.storeResult(p, value, frame.buffer(buffer, getElementTypeOrSelf(value.getType())), keptIndex(), result, mask);
  };

  if (!segment) {
    atPoint(u, fixed, 1, {});
  } else {
    if (reduced.empty())
      hoist(u, kernel, frame, elements, stage, 0, fixed, full, -1, 1, {});
    auto size = dyn_cast<AffineConstantExpr>(full[lastAxis]);
    bool divides = size && size.getValue() % lanes == 0;
    vectorLoop(u, loc, elements, segmentStart, segmentEnd, lanes, divides, {}, [&](OpBuilder &p, Value at, Value mask, ValueRange) {
      DenseMap<int64_t, Value> here = fixed;
      here[lastAxis] = at;
      atPoint(p, here, lanes, mask);
      return Carried();
    });
  }
  elements.popScope();
}

//===--- products ---===//

void KernelEmitter::emitProduct(unsigned launch, OpBuilder &b, FrameAccess &frame, Value begin, Value end, Value scratch) const {
  Location loc = kernel.getLoc();
  ElementEmitter elements(kernel, [&](AffineExpr expr) { return frame.size(expr); });
  for (auto [argument, number] : llvm::zip(kernel.getBody().getArguments(), kernel->getAttrOfType<DenseI64ArrayAttr>("input_buffers").asArrayRef()))
    elements.setMemory(argument, frame.buffer(number, getElementTypeOrSelf(argument.getType())));
  auto yield = cast<YieldOp>(kernel.getBody().front().getTerminator());
  auto buffers = kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers").asArrayRef();
  SmallVector<Value> stores;
  for (auto [value, buffer] : llvm::zip(yield.getOperands(), buffers))
    stores.push_back(frame.buffer(buffer, getElementTypeOrSelf(value.getType())));
  if (launch + 1 == launchCount()) {
    elements.prepareScalars(b);
    hoist(b, kernel, frame, elements, DenseMap<Operation *, int64_t>(), 0, DenseMap<int64_t, Value>(), full, -1, 1, {});
  }
  Type element = getElementTypeOrSelf(contraction->getOperand(0).getType());
  Value keptNumber = memrefOf(b, loc, scratch, b.getI64Type());
  auto scratchFrom = [&](int64_t bytes, Type type) {
    Value own = LLVM::GEPOp::create(b, loc, scratch.getType(), b.getI8Type(), scratch, ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(bytes)});
    return memrefOf(b, loc, own, type);
  };
  auto finish = [&](OpBuilder &e, const ElementIndex &at, Value acc, int64_t lanes, Value mask) {
    elements.pushScope();
    elements.setAvailable(contraction->getResult(0), acc);
    SmallVector<Value> results;
    for (Value value : yield.getOperands())
      results.push_back(elements.element(e, computedValue(value), at, lanes, mask));
    for (auto [value, memory, result] : llvm::zip(yield.getOperands(), stores, results))
      elements.storeResult(e, value, memory, at, result, mask);
    elements.popScope();
  };
  if (convolution) {
    auto op = cast<ConvolutionOp>(contraction);
    ConvolutionOperands operands;
    operands.lhs = operandMemory(frame, op.getLhs());
    operands.rhs = operandMemory(frame, op.getRhs());
    operands.images = frame.size(imageCount());
    operands.workspace = memoryNamed(frame, "workspace_buffer", element);
    operands.panels = memoryNamed(frame, "panels_buffer", element);
    operands.kept = keptNumber;
    operands.tables = scratchFrom(keptBytes, b.getI64Type());
    operands.scratch = scratchFrom(keptBytes + tableBytes(), element);
    ask([&](auto &engine) {
      engine.emit(launch, b, loc, operands, begin, end, crossesRows(),
                  [&](OpBuilder &e, Location, const ElementIndex &at, Value acc, int64_t lanes, Value mask) { finish(e, at, acc, lanes, mask); });
    });
    return;
  }
  GemmOperands operands = gemmOperands(b, frame);
  operands.kept = keptNumber;
  gemm->emit(launch, b, loc, operands, begin, end, scratchFrom(keptBytes, element), [&](OpBuilder &e, Location, ValueRange batchRowCol, Value acc, Value mask) {
    ElementIndex at;
    Value batch = batchRowCol[0];
    int64_t rank = full.size();
    for (int64_t axis = 0; axis < rank - 2; ++axis) {
      AffineExpr inner = productOf(ArrayRef(full).slice(axis + 1, rank - 3 - axis), e.getContext());
      Value index = axis == rank - 3 ? batch : arith::DivUIOp::create(e, loc, batch, frame.size(inner)).getResult();
      if (axis < rank - 3)
        batch = arith::SubIOp::create(e, loc, batch, mul(e, loc, index, frame.size(inner)));
      at.dims.push_back(index);
    }
    at.dims.push_back(batchRowCol[1]);
    at.dims.push_back(batchRowCol[2]);
    finish(e, at, acc, gemm->lanes(), mask);
  });
}

//===--- functions of the user's own ---===//

FunctionType wrapperType(ExternOp op) {
  Builder b(op.getContext());
  SmallVector<Type> types(op.getNumOperands() + op.getNumResults(), LLVM::LLVMPointerType::get(op.getContext()));
  types.append(passedSizes(op).size() + (op.getParallel() ? 2 : 0), b.getI64Type());
  return b.getFunctionType(types, {});
}

void KernelEmitter::emitExtern(OpBuilder &b, FrameAccess &frame, Value begin, Value end) const {
  Location loc = kernel.getLoc();
  auto buffers = [&](StringRef name) { return kernel->getAttrOfType<DenseI64ArrayAttr>(name).asArrayRef(); };
  SmallVector<Value> arguments;
  for (Value operand : call.getInputs())
    arguments.push_back(frame.pointer(buffers("input_buffers")[inputOfOperand(operand)]));
  for (int64_t buffer : buffers("result_buffers"))
    arguments.push_back(frame.pointer(buffer));
  auto number = [&](Value index) { return arith::IndexCastOp::create(b, loc, b.getI64Type(), index).getResult(); };
  for (AffineExpr size : passedSizes(call))
    arguments.push_back(number(frame.size(size)));
  if (call.getParallel()) {
    arguments.push_back(number(begin));
    arguments.push_back(number(end));
  }
  func::CallOp::create(b, loc, kernel->getAttrOfType<FlatSymbolRefAttr>(wrapperAttr), TypeRange(), arguments);
}

//===--- checks ---===//

void emitIndexCheck(CheckIndexOp check, int64_t fault, OpBuilder &b, FrameAccess &frame) {
  Location loc = check.getLoc();
  auto type = cast<RankedTensorType>(check.getX().getType());
  Value memory = frame.buffer(check->getAttrOfType<DenseI64ArrayAttr>("input_buffers")[0], type.getElementType());
  Value count = frame.size(elementCount(type)), zero = constantIndex(b, loc, 0), one = constantIndex(b, loc, 1);
  Value limit = arith::IndexCastOp::create(b, loc, b.getI64Type(), frame.size(check.getSize().getResult(0)));
  Value noFault = constantIndex(b, loc, -1);
  auto wide = [&](OpBuilder &o, Value value) { return convert(ScalarExpr(o, loc, value), type.getElementType(), o.getI64Type()).value; };
  // From the last to the first, so that the first bad element is what remains.
  auto loop = scf::ForOp::create(b, loc, zero, count, one, noFault);
  OpBuilder o = OpBuilder::atBlockBegin(loop.getBody());
  Value at = arith::SubIOp::create(o, loc, arith::SubIOp::create(o, loc, count, loop.getInductionVar()), one);
  Value value = wide(o, memref::LoadOp::create(o, loc, memory, at));
  Value isBad = buildIsOutside(o, loc, check, value, limit);
  scf::YieldOp::create(o, loc, arith::SelectOp::create(o, loc, isBad, at, loop.getRegionIterArg(0)).getResult());

  Value found = loop.getResult(0);
  Value report = memrefOf(b, loc, frame.field(3), b.getI64Type());
  Value site = memref::LoadOp::create(b, loc, report, zero);
  Value isFirst = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, site, arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(0)));
  Value isFault = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, found, noFault);
  auto branch = scf::IfOp::create(b, loc, arith::AndIOp::create(b, loc, isFirst, isFault), /*withElseRegion=*/false);
  OpBuilder t = branch.getThenBodyBuilder();
  auto put = [&](int64_t place, Value number) { memref::StoreOp::create(t, loc, number, report, constantIndex(t, loc, place)); };
  put(0, arith::ConstantOp::create(t, loc, t.getI64IntegerAttr(fault)));
  put(1, arith::IndexCastOp::create(t, loc, t.getI64Type(), found));
  put(2, wide(t, memref::LoadOp::create(t, loc, memory, found)));
}

} // namespace dlc::cpu
