//===- Passes.td - passes from dl to dl -*- tablegen -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DLC_TRANSFORMS_PASSES
#define DLC_TRANSFORMS_PASSES

include "mlir/Pass/PassBase.td"

def Differentiate : Pass<"dl-differentiate", "::dlc::dl::ModelOp"> {
  let summary = "Expands dl.gradient by reverse mode";
  let description = [{
    Walks back from the value over the ops that depend on what it is derived by, asks each for its vector-Jacobian product (DifferentiableOpInterface), and adds up cotangents
    in program order. Gradients are expanded from first to last, so a gradient of a gradient sees plain ops. Ops that do not depend on a
    `wrt` value are never asked; a cotangent that nobody reads is dead code. A branch is taken back by the same branch, which computes again what it needs; a loop by one that runs backwards: cheap
    values are computed again, others are kept by the forward loop, turn by turn. Cotangents of slices add up in the slice (addVjp).
    Ops with one number of `dl.checkpoint` are computed again, from what goes into them, where the first of them is asked: what they hold in between need not live until then. Example: test/transforms/differentiate.mlir.
  }];
  let statistics = [Statistic<"gradients", "gradients", "dl.gradient ops expanded">, Statistic<"products", "vector-jacobian-products", "ops asked for a product">,
                    Statistic<"kept", "kept", "values that loops keep turn by turn">,
                    Statistic<"recomputed", "recomputed", "ops of checkpoints that are computed again">];
  let dependentDialects = ["::dlc::dl::DlDialect"];
}

def RoundOperands : Pass<"dl-round-operands", "::dlc::dl::ModelOp"> {
  let summary = "Rounds the operands of products to the model's precision";
  let description = [{
    Where the model has one, each operand of f32 of a product (ContractionOpInterface) goes through dl.round_to, those of gradients' products too, which is why it runs after differentiation; what holds products
    (attention) is taken apart before. A moved tensor is rounded before it is moved where that is no more work, so that whoever multiplies it has the same rounded one, and a tensor is rounded once. Example: test/transforms/round-operands.mlir.
  }];
  let statistics = [Statistic<"rounded", "rounded", "operands of products that are rounded">];
  let dependentDialects = ["::dlc::dl::DlDialect"];
}

def Decompose : Pass<"dl-decompose", "::dlc::dl::ModelOp"> {
  let summary = "Takes composite ops apart";
  let description = [{
    Softmax, cross entropy and their like stay whole while gradients look at them; here they become reductions and elementwise ops, of which fusion makes one pass.
    What a GPU's engine computes stays whole (every engine does then); with `for-engine`, where there is no GPU, what the CPU's does. Example: test/transforms/decompose.mlir.
  }];
  let options = [Option<"forEngine", "for-engine", "bool", "false", "leave whole what the CPU's engine computes, not the GPU's">];
  let statistics = [Statistic<"composites", "composites", "ops taken apart">];
  let dependentDialects = ["::dlc::dl::DlDialect"];
}

def Simplify : Pass<"dl-simplify", "::dlc::dl::ModelOp"> {
  let summary = "Algebra, folding, common subexpressions and dead code";
  let description = [{
    The canonicalization patterns of the dialect, patterns that hold for every op of an interface (a moved fill is a fill, an elementwise op of fills is a fill, elementwise ops do not care for dimensions of size 1, a reduction over such alone is its operand), and
    common subexpression elimination. Loops and branches lose what nobody reads, and loops what does not change from turn to turn. Never reassociates. Example: test/transforms/simplify.mlir.
  }];
  let statistics = [Statistic<"removed", "removed", "ops fewer than before">];
  let dependentDialects = ["::dlc::dl::DlDialect", "::mlir::arith::ArithDialect", "::mlir::math::MathDialect"];
}

def BatchProducts : Pass<"dl-batch-products", "::dlc::dl::ModelOp"> {
  let summary = "Makes one product of those of all turns of a loop";
  let description = [{
    The product of a turn's slice with a matrix from around the loop is computed for all turns before it; a sum of transposed products over all turns (a weight's gradient) becomes one product after it,
    of the factors one below the other, which the loop keeps. A product of a concatenation is split where a part of it can be computed before the loop. Each is done wherever it can be, so the values do not
    depend on options; sums over turns then run in the order of the turns. A tensor of which each turn reads and writes its own part alone is not filled before and not written for nobody. Example: test/transforms/batch-products.mlir.
  }];
  let statistics = [Statistic<"batched", "batched", "products that stand for those of all turns">];
  let dependentDialects = ["::dlc::dl::DlDialect"];
}

def Fuse : Pass<"dl-fuse", "::dlc::dl::ModelOp"> {
  let summary = "Forms kernels: dl.fused regions";
  let description = [{
    Every op that computes starts as a kernel of its own; kernels then merge along data flow where one pass over memory can serve both:
    elementwise ops into the product that feeds them (its epilogue), into the reductions they feed or that feed them, and into each other.
    Ops that only say where an element comes from, and cheap ones, are repeated in every kernel that reads them
    rather than kept in memory (trait RepeatedInConsumers). A merge never makes a cycle. Kernels are formed within each block; a loop or branch is a node like any other between them.
    What a kernel would end with goes to the kernels that read it instead where less then passes through memory: a product that several kernels multiply by something else
    is written once and multiplied by each of them; elementary functions are not computed twice.
    An update of a part of a value (UpdateOpInterface) ends the kernel that computes the part, which may read of the value only what is replaced. Example: test/transforms/fuse.mlir.
  }];
  let statistics = [Statistic<"kernels", "kernels", "dl.fused ops formed">, Statistic<"epilogues", "epilogue-ops", "ops that run in a product's epilogue">,
                    Statistic<"updates", "updates-in-epilogues", "variables updated inside the product that makes their gradient">];
  let dependentDialects = ["::dlc::dl::DlDialect", "::mlir::arith::ArithDialect", "::mlir::math::MathDialect"];
}

def PlanMemory : Pass<"dl-plan-memory", "::dlc::dl::ModelOp"> {
  let summary = "Orders kernels, gives every value a buffer and every assignment its place";
  let description = [{
    An assignment happens in place, in the kernel that computes the new value, where every other reader of the old value can run before it; else the new value is kept and
    copied at the end. Kernels that change variables run after all checks of the arguments. Small independent neighbours share a launch (all remaining
    updates are one). What a loop carries is written over what the last turn left where every reader of that can run first, else it has two places, which are exchanged after
    each turn; an op that writes a part of a value does so in the value's place, which is copied where it is still needed. The result is attributes: `launch` on kernels, `buffers` on their
    operands and results, `index_buffer`, `condition_buffer`, `limit_buffer` and `exchanged_buffers` on loops and branches, and the function's table
    of buffers with lifetimes in launches, which are numbered in program order, those of a loop once; sizes stay expressions in the dynamic dimensions. Example: test/transforms/plan-memory.mlir.
  }];
  let statistics = [Statistic<"inPlace", "in-place", "assignments made in place">, Statistic<"copied", "copied", "values copied to another place">,
                    Statistic<"exchanged", "exchanged", "values that a loop carries in two places">,
                    Statistic<"launches", "launches", "launches of all functions">];
  let dependentDialects = ["::dlc::dl::DlDialect"];
}

#endif
