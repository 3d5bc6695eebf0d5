//===- Modes.h - rounding and formats, as routines take them -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_PTX_MODES_H
#define DLC_TEST_STANDIN_PTX_MODES_H

#include <cstdint>

namespace standin {

/// .rn .rz .rm .rp .rna
enum Rounding : uint32_t { RoundNearest, RoundZero, RoundDown, RoundUp, RoundAway };

/// A float's format.
enum Format : uint32_t { FormatF16, FormatBF16, FormatF32, FormatF64 };

/// What shfl, vote, match, redux, mma, ldmatrix and the barriers do.
enum ShuffleMode : uint32_t { ShuffleUp, ShuffleDown, ShuffleXor, ShuffleIndex };
enum VoteMode : uint32_t { VoteAll, VoteAny, VoteUniform, VoteBallot };
enum ReduceMode : uint32_t { ReduceAdd, ReduceMinSigned, ReduceMaxSigned, ReduceMinUnsigned, ReduceMaxUnsigned, ReduceAnd, ReduceOr, ReduceXor };
/// The factors of mma.m16n8kK, sums being f32: their type and K.
enum MatrixMode : uint32_t { MatrixTf32K4, MatrixTf32K8, MatrixF16K8, MatrixF16K16, MatrixBf16K8, MatrixBf16K16 };
/// Of ldmatrix: the number of matrices, and whether they are transposed.
enum LoadMatrixMode : uint32_t { LoadMatrixCount = 7, LoadMatrixTransposed = 8 };
enum BarrierMode : uint32_t { BarrierSync, BarrierArrive, BarrierPopc, BarrierAnd, BarrierOr, BarrierKind = 7, BarrierAligned = 8 };

} // namespace standin

#endif // DLC_TEST_STANDIN_PTX_MODES_H
