//===- KernelAccess.cpp - the parameters of a CUDA kernel -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cuda/KernelAccess.h"
#include "compiler/lowering/cpu/KernelEmitter.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cuda {

KernelAccess::KernelAccess(ModuleOp module, StringRef name, Location loc, int64_t threads) : loc(loc) {
  OpBuilder b = OpBuilder::atBlockEnd(module.getBody());
  kernel = func::FuncOp::create(b, loc, name, b.getFunctionType({}, {}));
  kernel.setPrivate();
  kernel->setAttr("threads", b.getI32IntegerAttr(threads));
  entry = kernel.addEntryBlock();
}

void KernelAccess::setResidentBlocks(int64_t count) { kernel->setAttr("resident_blocks", Builder(kernel.getContext()).getI32IntegerAttr(count)); }

OpBuilder KernelAccess::atStart() {
  OpBuilder b(entry->getParent());
  if (last)
    b.setInsertionPointAfter(last);
  else
    b.setInsertionPointToStart(entry);
  return b;
}

Value KernelAccess::pointerParameter(CudaParameter parameter) {
  Value argument = entry->insertArgument(pointers.size(), LLVM::LLVMPointerType::get(kernel.getContext()), loc);
  pointers.push_back(std::move(parameter));
  return argument;
}

Value KernelAccess::buffer(int64_t number, Type elementType) {
  Type stored = memoryType(elementType);
  Value &memory = buffers[{number, stored.getAsOpaquePointer()}];
  if (!memory) {
    Value &pointer = bufferPointers[number];
    if (!pointer)
      pointer = pointerParameter(CudaParameter::ofBuffer(number));
    OpBuilder b = atStart();
    memory = cpu::memrefOf(b, loc, pointer, stored);
    last = memory.getDefiningOp();
  }
  return memory;
}

Value KernelAccess::fault() {
  if (!faultMemory) {
    Value pointer = pointerParameter(CudaParameter::ofFault());
    OpBuilder b = atStart();
    faultMemory = cpu::memrefOf(b, loc, pointer, b.getI64Type());
    last = faultMemory.getDefiningOp();
  }
  return faultMemory;
}

Value KernelAccess::hasNoFault() {
  if (!isFine) {
    Value memory = fault();
    OpBuilder b = atStart();
    Value site = memref::LoadOp::create(b, loc, memory, ValueRange{arith::ConstantIndexOp::create(b, loc, 0)});
    isFine = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, site, arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(0)));
    last = isFine.getDefiningOp();
  }
  return isFine;
}

Value KernelAccess::size(AffineExpr expr) {
  if (Value known = sizes.lookup(expr))
    return known;
  OpBuilder b = atStart();
  Value value;
  if (auto constant = dyn_cast<AffineConstantExpr>(expr)) {
    value = arith::ConstantIndexOp::create(b, loc, constant.getValue());
  } else {
    Value argument = entry->addArgument(b.getI64Type(), loc);
    sizeParameters.push_back(CudaParameter::ofSize(Size(expr)));
    value = arith::IndexCastOp::create(b, loc, b.getIndexType(), argument);
  }
  last = value.getDefiningOp();
  sizes[expr] = value;
  return value;
}

Value KernelAccess::special(Value &known, bool isBlock) {
  if (!known) {
    OpBuilder b = atStart();
    Type i32 = b.getI32Type();
    Value number = isBlock ? NVVM::BlockIdXOp::create(b, loc, i32).getResult() : NVVM::ThreadIdXOp::create(b, loc, i32).getResult();
    known = arith::IndexCastUIOp::create(b, loc, b.getIndexType(), number);
    last = known.getDefiningOp();
  }
  return known;
}

std::vector<CudaParameter> KernelAccess::parameters() const {
  std::vector<CudaParameter> all = pointers;
  all.insert(all.end(), sizeParameters.begin(), sizeParameters.end());
  return all;
}

func::FuncOp KernelAccess::finish() {
  OpBuilder b = bodyBuilder();
  func::ReturnOp::create(b, loc);
  kernel.setFunctionType(b.getFunctionType(entry->getArgumentTypes(), {}));
  // Each buffer is one parameter, and no two buffers share memory while a launch runs.
  for (size_t i = 0; i < pointers.size(); ++i)
    kernel.setArgAttr(i, LLVM::LLVMDialect::getNoAliasAttrName(), b.getUnitAttr());
  return kernel;
}

} // namespace dlc::cuda
