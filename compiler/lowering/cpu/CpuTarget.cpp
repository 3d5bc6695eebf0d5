//===- CpuTarget.cpp - planned dl to LLVM, for a CPU -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A function of the model becomes
//
//   func @<model>_<function>(%frame)                                 its entry: launches in order, by frame->host->parallel
//   func @<function>_<launch>(%frame, %begin, %end, %scratch)        the kernel of a launch: hands its tasks to the kernels that share it
//   func @<function>_<launch>_<name>(%frame, %begin, %end, %scratch) a fused kernel (where several share a launch)

#include "compiler/lowering/cpu/CpuTarget.h"
#include "compiler/lowering/DescribeModel.h"
#include "compiler/lowering/ExternWrapper.h"
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

WorkspaceSize workspaceSize(const CpuInfo &cpu) {
  return [cpu](FusedOp kernel, Type &elementType) { return KernelEmitter(kernel, cpu).workspaceElements(elementType); };
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
  explicit KernelBody(func::FuncOp kernel)
      : block(&kernel.getBody().front()), b(OpBuilder::atBlockEnd(block)), loc(kernel.getLoc()), pointer(kernel.getArgument(0)), frame(block, pointer, loc) {
    begin = arith::IndexCastOp::create(b, loc, b.getIndexType(), kernel.getArgument(1));
    end = arith::IndexCastOp::create(b, loc, b.getIndexType(), kernel.getArgument(2));
    scratch = kernel.getArgument(3);
  }
  void finish() { func::ReturnOp::create(b, loc); }
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
  auto emitOne = [&](FusedOp kernel, StringRef name) {
    KernelEmitter emitter(kernel, cpu);
    to.scratchBytes = std::max<uint64_t>(to.scratchBytes, emitter.scratchBytes());
    func::FuncOp function = makeKernel(name, kernel.getLoc());
    KernelBody body(function);
    emitter.emit(part, body.b, body.frame, body.begin, body.end, body.scratch);
    body.finish();
    return function;
  };
  if (nodes.size() == 1) {
    emitOne(cast<FusedOp>(nodes.front()), name);
    return;
  }
  // Tasks of all, one after the other: each kernel gets what falls into its share.
  SmallVector<func::FuncOp> parts;
  for (auto [i, node] : llvm::enumerate(nodes))
    parts.push_back(emitOne(cast<FusedOp>(node), (name + "_" + Twine(i)).str()));
  KernelBody body(makeKernel(name, loc));
  Value offset = arith::ConstantIndexOp::create(body.b, loc, 0);
  for (auto [node, kernel] : llvm::zip(nodes, parts)) {
    OpBuilder &kb = body.b;
    Value count = KernelEmitter(cast<FusedOp>(node), cpu).tasks(part, kb, body.frame);
    Value next = arith::AddIOp::create(kb, loc, offset, count);
    Value from = arith::MaxSIOp::create(kb, loc, body.begin, offset), until = arith::MinSIOp::create(kb, loc, body.end, next);
    auto branch = scf::IfOp::create(kb, loc, arith::CmpIOp::create(kb, loc, arith::CmpIPredicate::slt, from, until), /*withElseRegion=*/false);
    OpBuilder inner = branch.getThenBodyBuilder();
    auto number = [&](Value index) { return arith::IndexCastOp::create(inner, loc, inner.getI64Type(), arith::SubIOp::create(inner, loc, index, offset)); };
    Value first = number(from), last = number(until);
    func::CallOp::create(inner, loc, kernel, ValueRange{body.pointer, first, last, body.scratch});
    offset = next;
  }
  body.finish();
}

/// Declares the wrappers of functions of the user's own, and names them to the kernels that call them.
LogicalResult ModelLowering::wrapExterns(FuncOp function) {
  for (auto kernel : function.getBody().front().getOps<FusedOp>()) {
    ExternOp call = externOf(kernel);
    if (!call)
      continue;
    FailureOr<std::string> symbol = wrapForCpu(call, description);
    if (failed(symbol))
      return failure();
    kernel->setAttr(wrapperAttr, FlatSymbolRefAttr::get(b.getContext(), *symbol));
    if (!model->getParentOfType<ModuleOp>().lookupSymbol(*symbol))
      func::FuncOp::create(b, call.getLoc(), *symbol, wrapperType(call)).setPrivate();
  }
  return success();
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
  for (Operation &op : function.getBody().front())
    if (auto launch = op.getAttrOfType<IntegerAttr>("launch"))
      launches[launch.getInt()].push_back(&op);

  struct Part {
    SmallVector<Operation *> nodes;
    unsigned part;
    std::string symbol;
    bool isCheck;
  };
  std::vector<Part> parts;
  for (auto [number, nodes] : llvm::enumerate(launches)) {
    auto kernel = dyn_cast<FusedOp>(nodes.front());
    unsigned count = kernel ? KernelEmitter(kernel, cpu).launchCount() : 1;
    for (unsigned part = 0; part < count; ++part) {
      std::string symbol = (function.getSymName() + "_" + Twine(number) + (count > 1 ? "_" + Twine(part) : "")).str();
      emitLaunch(function, nodes, part, symbol, to);
      std::string shown;
      for (Operation *node : nodes) {
        auto name = node->getAttrOfType<StringAttr>("name");
        shown += (shown.empty() ? "" : "+") + (name ? name.getValue().str() : std::string("check_index"));
      }
      to.kernels.push_back({part + 1 < count ? "pack" : shown, locationText(nodes.front()->getLoc())});
      parts.push_back({nodes, part, symbol, !kernel});
    }
  }

  // The entry.
  Location loc = function.getLoc();
  auto pointer = LLVM::LLVMPointerType::get(b.getContext());
  auto entry = func::FuncOp::create(b, loc, to.entrySymbol, b.getFunctionType({pointer}, {}));
  Block *start = entry.addEntryBlock();
  OpBuilder e = OpBuilder::atBlockEnd(start);
  Value framePointer = entry.getArgument(0);
  FrameAccess frame(start, framePointer, loc);
  SmallVector<Value> counts;
  for (const Part &part : parts) {
    Value total;
    if (part.isCheck) {
      total = frame.size(e.getAffineConstantExpr(1));
    } else {
      for (Operation *node : part.nodes) {
        Value count = KernelEmitter(cast<FusedOp>(node), cpu).tasks(part.part, e, frame);
        total = total ? arith::AddIOp::create(e, loc, total, count).getResult() : count;
      }
    }
    counts.push_back(total);
  }
  Block *exit = nullptr;
  // dl_host: two 32-bit words, then the function pointers.
  Value parallelAt = LLVM::GEPOp::create(e, loc, pointer, e.getI64Type(), frame.field(0), ArrayRef<LLVM::GEPArg>{1});
  Value parallel = LLVM::LoadOp::create(e, loc, pointer, parallelAt);
  auto parallelType = LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(b.getContext()), {pointer, pointer, e.getI64Type(), e.getI32Type()});
  for (auto [number, part, count] : llvm::enumerate(parts, counts)) {
    auto kernelType = b.getFunctionType({pointer, e.getI64Type(), e.getI64Type(), pointer}, {});
    Value address = func::ConstantOp::create(e, loc, kernelType, part.symbol);
    address = UnrealizedConversionCastOp::create(e, loc, pointer, address).getResult(0);
    Value tasks = arith::IndexCastOp::create(e, loc, e.getI64Type(), count);
    Value index = LLVM::ConstantOp::create(e, loc, e.getI32Type(), e.getI32IntegerAttr(number));
    LLVM::CallOp::create(e, loc, parallelType, ValueRange{parallel, framePointer, address, tasks, index});
    bool lastCheck = part.isCheck && (number + 1 == parts.size() || !parts[number + 1].isCheck);
    if (!lastCheck)
      continue;
    // Nothing has been changed yet: a call with a fault ends here.
    Value site = LLVM::LoadOp::create(e, loc, e.getI64Type(), frame.field(3));
    Value isFine = arith::CmpIOp::create(e, loc, arith::CmpIPredicate::eq, site, arith::ConstantOp::create(e, loc, e.getI64IntegerAttr(0)));
    Block *next = entry.addBlock();
    if (!exit)
      exit = entry.addBlock();
    cf::CondBranchOp::create(e, loc, isFine, next, ValueRange{}, exit, ValueRange{});
    e.setInsertionPointToStart(next);
  }
  func::ReturnOp::create(e, loc);
  if (exit) {
    e.setInsertionPointToStart(exit);
    func::ReturnOp::create(e, loc);
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
