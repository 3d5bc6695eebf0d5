//===- CpuTarget.cpp - planned dl to LLVM, for a CPU -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A function of the model becomes
//
//   func @<model>_<function>_prepare(%frame)                         if it keeps what it packs of variables for many calls: the launches that do, once
//   func @<model>_<function>(%frame)                                 its entry: launches in order, by frame->host->parallel, with loops and branches around them
//   func @<function>_<launch>(%frame, %begin, %end, %scratch)        the kernel of a launch: hands its tasks to the fused kernels that share it, and these their buffers
//   func @<function>_<launch>_<n>(%frame, %begin, %end, %scratch, …) a fused kernel, on the buffers that it is given: layers of one shape share it

#include "compiler/lowering/cpu/CpuTarget.h"
#include "compiler/lowering/DescribeModel.h"
#include "compiler/lowering/ExternWrapper.h"
#include "compiler/lowering/KernelWork.h"
#include "compiler/lowering/cpu/KernelEmitter.h"
#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlowOps.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Transforms/Passes.h"
#include <optional>

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cpu {
#define GEN_PASS_DEF_CPUEMITKERNELS
#include "compiler/lowering/cpu/Passes.h.inc"

WorkspaceOf workspaceOf(const CpuInfo &cpu) {
  return [cpu](FusedOp kernel) { return KernelEmitter(kernel, cpu).workspace(); };
}

namespace {
class ModelLowering {
public:
  ModelLowering(ModelOp model, const CpuInfo &cpu, ModelDescription &description) : model(model), cpu(cpu), description(description), b(model.getContext()) {}
  LogicalResult run();

private:
  LogicalResult lower(FuncOp function);
  LogicalResult wrapExterns(FuncOp function);
  func::FuncOp makeKernel(StringRef name, Location loc);
  void emitLaunch(FuncOp function, ArrayRef<Operation *> nodes, unsigned part, StringRef name, FunctionDescription &to);

  ModelOp model;
  const CpuInfo &cpu;
  ModelDescription &description;
  OpBuilder b;
};
} // namespace

/// func @name(%frame, %begin, %end, %scratch)
func::FuncOp ModelLowering::makeKernel(StringRef name, Location loc) {
  auto pointer = LLVM::LLVMPointerType::get(b.getContext());
  auto type = b.getFunctionType({pointer, b.getI64Type(), b.getI64Type(), pointer}, {});
  auto kernel = func::FuncOp::create(b, loc, name, type);
  kernel.setPrivate();
  kernel.addEntryBlock();
  return kernel;
}

namespace {
/// A kernel's arguments, as the emitters want them.
struct KernelBody {
  explicit KernelBody(func::FuncOp kernel, bool takesBuffers = false)
      : kernel(kernel), block(&kernel.getBody().front()), b(OpBuilder::atBlockEnd(block)), loc(kernel.getLoc()), pointer(kernel.getArgument(0)),
        frame(block, pointer, loc, takesBuffers) {
    begin = arith::IndexCastOp::create(b, loc, b.getIndexType(), kernel.getArgument(1));
    end = arith::IndexCastOp::create(b, loc, b.getIndexType(), kernel.getArgument(2));
    scratch = kernel.getArgument(3);
  }
  void finish() {
    func::ReturnOp::create(b, loc);
    kernel.setFunctionType(b.getFunctionType(block->getArgumentTypes(), {}));
  }
  func::FuncOp kernel;
  Block *block;
  OpBuilder b;
  Location loc;
  Value pointer;
  FrameAccess frame;
  Value begin, end, scratch;
};
} // namespace

void ModelLowering::emitLaunch(FuncOp function, ArrayRef<Operation *> nodes, unsigned part, StringRef name, FunctionDescription &to) {
  Location loc = nodes.front()->getLoc();
  if (auto check = dyn_cast<CheckIndexOp>(nodes.front())) {
    KernelBody body(makeKernel(name, loc));
    emitIndexCheck(check, describeFault(check, description), body.b, body.frame);
    body.finish();
    return;
  }
  struct Part {
    func::FuncOp kernel;
    SmallVector<int64_t> buffers;
  };
  SmallVector<Part> parts;
  for (auto [i, node] : llvm::enumerate(nodes)) {
    auto kernel = cast<FusedOp>(node);
    KernelEmitter emitter(kernel, cpu);
    to.scratchBytes = std::max<uint64_t>(to.scratchBytes, emitter.scratchBytes());
    KernelBody body(makeKernel((name + "_" + Twine(i)).str(), kernel.getLoc()), /*takesBuffers=*/true);
    emitter.emit(part, body.b, body.frame, body.begin, body.end, body.scratch);
    body.finish();
    if (std::string schedule = emitter.describe(); !schedule.empty() && part + 1 == emitter.launchCount())
      body.kernel->setAttr("schedule", b.getStringAttr(schedule)); // for whoever reads what was lowered
    parts.push_back({body.kernel, llvm::to_vector(body.frame.takenBuffers())});
  }
  KernelBody body(makeKernel(name, loc));
  auto callPart = [&](OpBuilder &at, const Part &part, Value first, Value last) {
    SmallVector<Value> arguments{body.pointer, first, last, body.scratch};
    for (int64_t buffer : part.buffers)
      arguments.push_back(body.frame.pointer(buffer));
    func::CallOp::create(at, loc, part.kernel, arguments);
  };
  if (parts.size() == 1) {
    callPart(body.b, parts.front(), body.kernel.getArgument(1), body.kernel.getArgument(2));
    body.finish();
    return;
  }
  // Tasks of all, one after the other: each kernel gets what falls into its share.
  Value offset = arith::ConstantIndexOp::create(body.b, loc, 0);
  for (auto [node, fused] : llvm::zip(nodes, parts)) {
    OpBuilder &kb = body.b;
    Value count = KernelEmitter(cast<FusedOp>(node), cpu).tasks(part, kb, body.frame);
    Value next = arith::AddIOp::create(kb, loc, offset, count);
    Value from = arith::MaxSIOp::create(kb, loc, body.begin, offset), until = arith::MinSIOp::create(kb, loc, body.end, next);
    auto branch = scf::IfOp::create(kb, loc, arith::CmpIOp::create(kb, loc, arith::CmpIPredicate::slt, from, until), /*withElseRegion=*/false);
    OpBuilder inner = branch.getThenBodyBuilder();
    auto number = [&](Value index) { return arith::IndexCastOp::create(inner, loc, inner.getI64Type(), arith::SubIOp::create(inner, loc, index, offset)); };
    Value first = number(from), last = number(until);
    callPart(inner, fused, first, last);
    offset = next;
  }
  body.finish();
}

namespace {
/// What the entry calls for one launch, or one of the parts that a launch takes.
struct LaunchPart {
  SmallVector<Operation *> nodes;
  unsigned part;
  std::string symbol;
  bool isCheck;
  Operation *keeper; // the loop before which it runs, once for all turns; the function before whose calls; null: it runs where the launch stands
  Value tasks;  // an i64, known when the function is entered
};

/// The function that runs the launches in order, with the loops and branches around them; or the one that runs those that it keeps for many calls.
class EntryEmitter {
public:
  EntryEmitter(func::FuncOp entry, ArrayRef<SmallVector<LaunchPart>> launches)
      : entry(entry), start(entry.addEntryBlock()), b(OpBuilder::atBlockEnd(start)), loc(entry.getLoc()), framePointer(entry.getArgument(0)), frame(start, framePointer, loc),
        launches(launches) {}
  void run(FuncOp function, bool isPreparation, const CpuInfo &cpu);

private:
  void emit(Block &block);
  void emitLaunch(int64_t number, Operation *keeper);
  /// All launches that run once for one.
  void emitLaunchesOnce(Operation *keeper);
  void emitFor(ForOp loop);
  void emitIf(IfOp branch);
  /// Nothing has been changed yet: a call with a fault ends here.
  void leaveOnFault();
  Value placeOfBuffer(int64_t number);
  Value loadScalar(int64_t buffer, Type type);
  Value loadCondition(int64_t buffer);
  Block *addBlock() { return entry.addBlock(); }

  func::FuncOp entry;
  Block *start, *exit = nullptr;
  OpBuilder b;
  Location loc;
  Value framePointer;
  FrameAccess frame;
  std::vector<SmallVector<LaunchPart>> launches;
  Value parallel;
  LLVM::LLVMFunctionType parallelType;
  DenseSet<int64_t> emitted;
  uint32_t kernelNumber(int64_t launch, unsigned part) const {
    uint32_t number = part;
    for (int64_t i = 0; i < launch; ++i)
      number += launches[i].size();
    return number;
  }
  DenseMap<Operation *, Value> firstOf, lastOf; // of loops: i64, known when the function is entered
};
} // namespace

void EntryEmitter::run(FuncOp function, bool isPreparation, const CpuInfo &cpu) {
  Block &block = function.getBody().front();
  MLIRContext *context = b.getContext();
  auto pointer = LLVM::LLVMPointerType::get(context);
  for (SmallVector<LaunchPart> &parts : launches)
    for (LaunchPart &part : parts) {
      if ((part.keeper == function) != isPreparation)
        continue;
      Value total;
      if (part.isCheck)
        total = frame.size(b.getAffineConstantExpr(1));
      else
        for (Operation *node : part.nodes) {
          Value count = KernelEmitter(cast<FusedOp>(node), cpu).tasks(part.part, b, frame);
          total = total ? arith::AddIOp::create(b, loc, total, count).getResult() : count;
        }
      part.tasks = arith::IndexCastOp::create(b, loc, b.getI64Type(), total);
    }
  block.walk([&](ForOp loop) {
    auto number = [&](AffineMap map) { return arith::IndexCastOp::create(b, loc, b.getI64Type(), frame.size(map.getResult(0))).getResult(); };
    firstOf[loop] = number(loop.getFirst());
    if (loop.getLast())
      lastOf[loop] = number(*loop.getLast());
  });
  // dl_host: two 32-bit words, then the function pointers.
  Value parallelAt = LLVM::GEPOp::create(b, loc, pointer, b.getI64Type(), frame.field(0), ArrayRef<LLVM::GEPArg>{1});
  parallel = LLVM::LoadOp::create(b, loc, pointer, parallelAt);
  parallelType = LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(context), {pointer, pointer, b.getI64Type(), b.getI32Type()});
  frame.field(1);
  frame.field(3);
  if (isPreparation)
    emitLaunchesOnce(function);
  else
    emit(block);
  func::ReturnOp::create(b, loc);
  if (exit) {
    b.setInsertionPointToStart(exit);
    func::ReturnOp::create(b, loc);
  }
}

void EntryEmitter::emit(Block &block) {
  SmallVector<Operation *> ops;
  for (Operation &op : block)
    if (op.hasAttr("launch") || isa<ForOp, IfOp>(op))
      ops.push_back(&op);
  auto isCheck = [](Operation *op) { return isa<CheckIndexOp>(op); };
  for (auto [i, op] : llvm::enumerate(ops)) {
    if (auto loop = dyn_cast<ForOp>(op)) {
      emitFor(loop);
    } else if (auto branch = dyn_cast<IfOp>(op)) {
      emitIf(branch);
    } else {
      int64_t number = op->getAttrOfType<IntegerAttr>("launch").getInt();
      if (emitted.insert(number).second)
        emitLaunch(number, nullptr);
      if (isCheck(op) && (i + 1 == ops.size() || !isCheck(ops[i + 1])))
        leaveOnFault();
    }
  }
}

void EntryEmitter::emitLaunchesOnce(Operation *keeper) {
  for (size_t number = 0; number < launches.size(); ++number)
    emitLaunch(number, keeper);
}

/// The parts of a launch that run once for a loop or the function; those that run where it stands.
void EntryEmitter::emitLaunch(int64_t number, Operation *keeper) {
  auto pointer = LLVM::LLVMPointerType::get(b.getContext());
  for (auto [part, launch] : llvm::enumerate(launches[number])) {
    if (launch.keeper != keeper)
      continue;
    auto kernelType = b.getFunctionType({pointer, b.getI64Type(), b.getI64Type(), pointer}, {});
    Value address = func::ConstantOp::create(b, loc, kernelType, launch.symbol);
    address = UnrealizedConversionCastOp::create(b, loc, pointer, address).getResult(0);
    Value index = LLVM::ConstantOp::create(b, loc, b.getI32Type(), b.getI32IntegerAttr(kernelNumber(number, part)));
    LLVM::CallOp::create(b, loc, parallelType, ValueRange{parallel, framePointer, address, launch.tasks, index});
  }
}

void EntryEmitter::leaveOnFault() {
  Value site = LLVM::LoadOp::create(b, loc, b.getI64Type(), frame.field(3));
  Value isFine = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, site, arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(0)));
  Block *next = addBlock();
  if (!exit)
    exit = addBlock();
  cf::CondBranchOp::create(b, loc, isFine, next, ValueRange{}, exit, ValueRange{});
  b.setInsertionPointToStart(next);
}

Value EntryEmitter::placeOfBuffer(int64_t number) {
  auto pointer = LLVM::LLVMPointerType::get(b.getContext());
  return LLVM::GEPOp::create(b, loc, pointer, pointer, frame.field(1), ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(number)});
}

/// Asked for anew each time: a loop may have exchanged the place.
Value EntryEmitter::loadScalar(int64_t buffer, Type type) {
  Value memory = LLVM::LoadOp::create(b, loc, LLVM::LLVMPointerType::get(b.getContext()), placeOfBuffer(buffer));
  return LLVM::LoadOp::create(b, loc, type, memory);
}
Value EntryEmitter::loadCondition(int64_t buffer) {
  Value byte = loadScalar(buffer, b.getI8Type());
  return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, byte, arith::ConstantOp::create(b, loc, b.getI8IntegerAttr(0)));
}

void EntryEmitter::emitFor(ForOp loop) {
  emitLaunchesOnce(loop);
  Value first = firstOf.lookup(loop), last = lastOf.lookup(loop);
  if (loop.getLimit()) {
    Value limit = loadScalar(loop->getAttrOfType<IntegerAttr>("limit_buffer").getInt(), b.getI64Type());
    Value end = arith::AddIOp::create(b, loc, first, limit);
    last = last ? arith::MinSIOp::create(b, loc, last, end).getResult() : end;
  }
  Block *head = addBlock(), *body = addBlock(), *next = addBlock();
  Value index = head->addArgument(b.getI64Type(), loc);
  cf::BranchOp::create(b, loc, head, ValueRange{first});
  b.setInsertionPointToStart(head);
  Value goesOn;
  if (last)
    goesOn = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::slt, index, last);
  if (loop.getConditional()) {
    Value condition = loadCondition(loop->getAttrOfType<IntegerAttr>("condition_buffer").getInt());
    goesOn = goesOn ? arith::AndIOp::create(b, loc, goesOn, condition).getResult() : condition;
  }
  cf::CondBranchOp::create(b, loc, goesOn, body, ValueRange{}, next, ValueRange{});
  b.setInsertionPointToStart(body);
  // Kernels read the index like any other number.
  Value memory = LLVM::LoadOp::create(b, loc, LLVM::LLVMPointerType::get(b.getContext()), placeOfBuffer(loop->getAttrOfType<IntegerAttr>("index_buffer").getInt()));
  LLVM::StoreOp::create(b, loc, index, memory);
  // A launch inside of a loop is emitted where the loop is.
  emit(loop.getBody().front());
  if (auto pairs = loop->getAttrOfType<DenseI64ArrayAttr>("exchanged_buffers")) {
    auto pointer = LLVM::LLVMPointerType::get(b.getContext());
    ArrayRef<int64_t> numbers = pairs;
    for (size_t i = 0; i < numbers.size(); i += 2) {
      Value at = placeOfBuffer(numbers[i]), other = placeOfBuffer(numbers[i + 1]);
      Value read = LLVM::LoadOp::create(b, loc, pointer, at), written = LLVM::LoadOp::create(b, loc, pointer, other);
      LLVM::StoreOp::create(b, loc, written, at);
      LLVM::StoreOp::create(b, loc, read, other);
    }
  }
  Value following = arith::AddIOp::create(b, loc, index, arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(1)));
  cf::BranchOp::create(b, loc, head, ValueRange{following});
  b.setInsertionPointToStart(next);
}

void EntryEmitter::emitIf(IfOp branch) {
  Value condition = loadCondition(branch->getAttrOfType<IntegerAttr>("condition_buffer").getInt());
  Block *whenTrue = addBlock(), *whenFalse = addBlock(), *next = addBlock();
  cf::CondBranchOp::create(b, loc, condition, whenTrue, ValueRange{}, whenFalse, ValueRange{});
  for (auto [block, region] : {std::pair(whenTrue, &branch.getWhenTrue()), std::pair(whenFalse, &branch.getWhenFalse())}) {
    b.setInsertionPointToStart(block);
    emit(region->front());
    cf::BranchOp::create(b, loc, next);
  }
  b.setInsertionPointToStart(next);
}

/// Declares the wrappers of functions of the user's own, and names them to the kernels that call them.
LogicalResult ModelLowering::wrapExterns(FuncOp function) {
  WalkResult wrapped = function.walk([&](FusedOp kernel) {
    ExternOp call = externOf(kernel);
    if (!call)
      return WalkResult::advance();
    FailureOr<std::string> symbol = wrapForCpu(call, description);
    if (failed(symbol))
      return WalkResult::interrupt();
    kernel->setAttr(wrapperAttr, FlatSymbolRefAttr::get(b.getContext(), *symbol));
    if (!model->getParentOfType<ModuleOp>().lookupSymbol(*symbol))
      func::FuncOp::create(b, call.getLoc(), *symbol, wrapperType(call)).setPrivate();
    return WalkResult::advance();
  });
  return failure(wrapped.wasInterrupted());
}

LogicalResult ModelLowering::lower(FuncOp function) {
  if (failed(wrapExterns(function)))
    return failure();
  FunctionDescription &to = findFunction(function.getSymName(), description);
  if (failed(describeFunction(function, to)) || failed(describeBuffers(function, description, to.buffers)))
    return failure();
  to.entrySymbol = description.name + "_" + to.name;
  to.launchCount = function->getAttrOfType<IntegerAttr>("launches").getInt();
  // Launches, in order.
  SmallVector<SmallVector<Operation *>> launches(to.launchCount);
  function.walk<WalkOrder::PreOrder>([&](Operation *op) {
    if (auto launch = op->getAttrOfType<IntegerAttr>("launch"))
      launches[launch.getInt()].push_back(op);
  });

  std::vector<SmallVector<LaunchPart>> parts(launches.size());
  for (auto [number, nodes] : llvm::enumerate(launches)) {
    auto kernel = dyn_cast<FusedOp>(nodes.front());
    unsigned count = 1, once = 0, together = 0;
    Operation *keeper = nullptr;
    if (kernel) {
      KernelEmitter emitter(kernel, cpu);
      count = emitter.launchCount();
      once = emitter.launchesOnce();
      keeper = emitter.keeperOfLaunchesOnce();
      together = emitter.tasksTogether();
    }
    for (unsigned part = 0; part < count; ++part) {
      std::string symbol = (function.getSymName() + "_" + Twine(number) + (count > 1 ? "_" + Twine(part) : "")).str();
      emitLaunch(function, nodes, part, symbol, to);
      std::string shown;
      for (Operation *node : nodes) {
        auto name = node->getAttrOfType<StringAttr>("name");
        shown += (shown.empty() ? "" : "+") + (name ? name.getValue().str() : std::string("check_index"));
      }
      KernelDescription kernelTo = {part + 1 < count ? "pack" : shown, locationText(nodes.front()->getLoc()), {}};
      if (part + 1 == count) {
        kernelTo.work = workOf(nodes);
        kernelTo.together = together;
      }
      to.kernels.push_back(std::move(kernelTo));
      parts[number].push_back({nodes, part, symbol, !kernel, part < once ? keeper : nullptr, {}});
    }
  }

  auto pointer = LLVM::LLVMPointerType::get(b.getContext());
  auto emitEntry = [&](StringRef symbol, bool isPreparation) {
    auto entry = func::FuncOp::create(b, function.getLoc(), symbol, b.getFunctionType({pointer}, {}));
    EntryEmitter(entry, parts).run(function, isPreparation, cpu);
  };
  emitEntry(to.entrySymbol, /*isPreparation=*/false);
  if (llvm::any_of(to.buffers, [](const BufferDescription &buffer) { return buffer.kind == DL_BUFFER_PREPARED; })) {
    to.preparationSymbol = to.entrySymbol + "_prepare";
    emitEntry(to.preparationSymbol, /*isPreparation=*/true);
  }
  return success();
}

/// Kernels that say the same are one: the layers of predict are those of loss and of step. Functions come after those they name.
static void shareKernels(ModuleOp module) {
  llvm::StringMap<func::FuncOp> known;
  llvm::StringMap<std::string> replaced;
  auto rename = [&](Operation *op, StringRef attribute) {
    auto symbol = op->getAttrOfType<FlatSymbolRefAttr>(attribute);
    if (auto it = replaced.find(symbol.getValue()); it != replaced.end())
      op->setAttr(attribute, FlatSymbolRefAttr::get(op->getContext(), it->second));
  };
  for (auto function : llvm::make_early_inc_range(module.getOps<func::FuncOp>())) {
    function.walk([&](Operation *op) {
      if (isa<func::CallOp>(op))
        rename(op, "callee");
      else if (isa<func::ConstantOp>(op))
        rename(op, "value");
    });
    if (!function.isPrivate() || function.isExternal())
      continue;
    std::string name = function.getSymName().str(), text;
    llvm::raw_string_ostream os(text);
    function.setSymName("kernel");
    function.print(os, OpPrintingFlags().useLocalScope());
    function.setSymName(name);
    auto [it, isNew] = known.try_emplace(text, function);
    if (isNew)
      continue;
    replaced[name] = it->second.getSymName().str();
    function.erase();
  }
}

LogicalResult ModelLowering::run() {
  b.setInsertionPoint(model);
  if (failed(describeVariables(model, description)))
    return failure();
  for (auto function : model.getBody().front().getOps<FuncOp>())
    if (failed(lower(function)))
      return failure();
  description.sortFunctions();
  auto module = model->getParentOfType<ModuleOp>();
  model.erase();
  shareKernels(module);
  return success();
}

namespace {
struct CpuEmitKernels : impl::CpuEmitKernelsBase<CpuEmitKernels> {
  using CpuEmitKernelsBase::CpuEmitKernelsBase;
  CpuEmitKernels(const CpuInfo &info, ModelDescription &description) : info(info), description(&description) {}

  void runOnOperation() override {
    ModuleOp module = getOperation();
    ModelDescription unused;
    if (!info) {
      // By name, from dl-opt.
      std::string error;
      info = CpuInfo::forFeatures("x86_64-unknown-linux-gnu", cpu, "", error);
      if (!info) {
        module.emitError(error);
        return signalPassFailure();
      }
    }
    auto models = module.getOps<ModelOp>();
    if (models.empty()) {
      module.emitError("there is no model to compile");
      return signalPassFailure();
    }
    if (failed(ModelLowering(*models.begin(), *info, description ? *description : unused).run()))
      signalPassFailure();
  }
  std::optional<CpuInfo> info;
  ModelDescription *description = nullptr;
};
} // namespace

std::unique_ptr<Pass> createCpuEmitKernels(const CpuInfo &cpu, ModelDescription &description) { return std::make_unique<CpuEmitKernels>(cpu, description); }

void buildLlvmPipeline(OpPassManager &passes) {
  passes.addPass(createCpuExpandMath());
  passes.addPass(createCSEPass());
  passes.addPass(createConvertVectorToLLVMPass());
  passes.addPass(createSCFToControlFlowPass());
  passes.addPass(createConvertMathToLLVMPass());
  passes.addPass(createFinalizeMemRefToLLVMConversionPass());
  passes.addPass(createArithToLLVMConversionPass());
  passes.addPass(createConvertFuncToLLVMPass());
  passes.addPass(createConvertControlFlowToLLVMPass());
  passes.addPass(createReconcileUnrealizedCastsPass());
}

} // namespace dlc::cpu
