//===- InstructionsTest.cpp - every family of instructions, with known answers -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A case is a few lines of PTX between inputs and a result. The inputs are in %rd1 to %rd4, %r1 to
// %r4, %f1 to %f4, %d1 to %d4 and %h1 to %h4, always the low bits of the same four numbers.
//
//===----------------------------------------------------------------------===//

#include "Common.h"
#include "llvm/ADT/bit.h"
#include <cmath>

using namespace standin;

namespace {

uint64_t F(float value) { return llvm::bit_cast<uint32_t>(value); }
uint64_t D(double value) { return llvm::bit_cast<uint64_t>(value); }
constexpr float inf = INFINITY;

struct Case {
  const char *body;
  std::vector<uint64_t> inputs;
  const char *result; ///< the register that holds it
  uint64_t expected;
};

std::vector<Case> integers() {
  return {
      {"add.s32 %r0, %r1, %r2;", {5, uint64_t(-7)}, "%r0", 0xfffffffe},
      {"add.u64 %rd0, %rd1, %rd2;", {0xffffffff, 1}, "%rd0", 0x100000000},
      {"add.s16 %h0, %h1, %h2;", {0x7fff, 1}, "%h0", 0x8000},
      {"add.sat.s32 %r0, %r1, %r2;", {0x7fffffff, 9}, "%r0", 0x7fffffff},
      {"sub.s32 %r0, %r1, 12;", {5}, "%r0", 0xfffffff9},
      {"sub.sat.s32 %r0, %r1, %r2;", {0x80000000, 1}, "%r0", 0x80000000},
      {"add.cc.u32 %r5, %r1, %r2; addc.u32 %r0, %r3, %r4;", {0xffffffff, 1, 10, 20}, "%r0", 31},
      {"sub.cc.u32 %r5, %r1, %r2; subc.u32 %r0, %r3, %r4;", {0, 1, 10, 4}, "%r0", 5},
      {"add.cc.u64 %rd5, %rd1, %rd2; addc.u64 %rd0, 0, 0;", {~0ull, 2}, "%rd0", 1},
      {"add.cc.u32 %r5, %r1, %r1; addc.cc.u32 %r5, %r2, %r2; addc.u32 %r0, 0, 0;", {0x80000000, 0xffffffff}, "%r0", 1},
      {"mul.lo.s32 %r0, %r1, %r2;", {uint64_t(-3), 7}, "%r0", 0xffffffeb},
      {"mul.hi.u32 %r0, %r1, %r2;", {0x80000000, 6}, "%r0", 3},
      {"mul.hi.s32 %r0, %r1, %r2;", {0x80000000, 6}, "%r0", 0xfffffffd},
      {"mul.hi.u64 %rd0, %rd1, %rd2;", {1ull << 63, 6}, "%rd0", 3},
      {"mul.hi.s64 %rd0, %rd1, %rd2;", {1ull << 63, 6}, "%rd0", uint64_t(-3)},
      {"mul.wide.s32 %rd0, %r1, %r2;", {uint64_t(-2), 3}, "%rd0", uint64_t(-6)},
      {"mul.wide.u32 %rd0, %r1, %r2;", {0xffffffff, 2}, "%rd0", 0x1fffffffe},
      {"mul.wide.u16 %r0, %h1, %h2;", {0xffff, 0xffff}, "%r0", 0xfffe0001},
      {"mul.wide.s16 %r0, %h1, %h2;", {0xffff, 5}, "%r0", 0xfffffffb},
      {"mad.lo.s32 %r0, %r1, %r2, %r3;", {3, 4, 5}, "%r0", 17},
      {"mad.wide.s32 %rd0, %r1, 8, %rd2;", {uint64_t(-1), 100}, "%rd0", 92},
      {"mad.hi.u32 %r0, %r1, %r2, %r3;", {1u << 31, 4, 1}, "%r0", 3},
      {"mad.lo.cc.u32 %r5, %r1, %r2, %r3; madc.hi.u32 %r0, %r1, %r2, 7;", {0x10000, 0xffff, 0x10000}, "%r0", 8},
      {"mad.lo.cc.u32 %r5, %r1, %r2, %r3; madc.lo.cc.u32 %r6, %r1, 0, 0xffffffff; addc.u32 %r0, 0, 0;", {2, 0x7fffffff, 2}, "%r0", 1},
      {"mul24.lo.u32 %r0, %r1, %r2;", {0xff000003, 5}, "%r0", 15},
      {"mul24.hi.s32 %r0, %r1, %r2;", {0x800000, 0x10000}, "%r0", 0xff800000},
      {"mad24.lo.s32 %r0, %r1, %r2, %r3;", {0xffffff, 5, 6}, "%r0", 1},
      {"div.s32 %r0, %r1, %r2;", {uint64_t(-7), 2}, "%r0", 0xfffffffd},
      {"div.u32 %r0, %r1, %r2;", {7, 0}, "%r0", 0xffffffff},
      {"div.s32 %r0, %r1, %r2;", {0x80000000, uint64_t(-1)}, "%r0", 0x80000000},
      {"div.u64 %rd0, %rd1, %rd2;", {1ull << 40, 3}, "%rd0", (1ull << 40) / 3},
      {"div.u16 %h0, %h1, %h2;", {0xfffe, 3}, "%h0", 0xfffe / 3},
      {"rem.s32 %r0, %r1, %r2;", {uint64_t(-7), 3}, "%r0", 0xffffffff},
      {"rem.s64 %rd0, %rd1, %rd2;", {1ull << 63, uint64_t(-1)}, "%rd0", 0},
      {"rem.u32 %r0, %r1, %r2;", {17, 5}, "%r0", 2},
      {"abs.s32 %r0, %r1;", {uint64_t(-9)}, "%r0", 9},
      {"neg.s64 %rd0, %rd1;", {5}, "%rd0", uint64_t(-5)},
      {"min.s32 %r0, %r1, %r2;", {uint64_t(-9), 3}, "%r0", 0xfffffff7},
      {"min.u32 %r0, %r1, %r2;", {uint64_t(-9), 3}, "%r0", 3},
      {"max.s16 %h0, %h1, %h2;", {0xfff0, 3}, "%h0", 3},
      {"max.u64 %rd0, %rd1, %rd2;", {~0ull, 3}, "%rd0", ~0ull},
      {"sad.s32 %r0, %r1, %r2, %r3;", {uint64_t(-5), 5, 1}, "%r0", 11},
      {"sad.u32 %r0, %r1, %r2, %r3;", {3, 9, 1}, "%r0", 7},
      {"popc.b64 %r0, %rd1;", {0xff00ff00ff00ff00}, "%r0", 32},
      {"clz.b32 %r0, %r1;", {0}, "%r0", 32},
      {"clz.b64 %r0, %rd1;", {1}, "%r0", 63},
      {"brev.b32 %r0, %r1;", {1}, "%r0", 0x80000000},
      {"bfind.u32 %r0, %r1;", {0x00800000}, "%r0", 23},
      {"bfind.s32 %r0, %r1;", {0xffffff7f}, "%r0", 7},
      {"bfind.shiftamt.u32 %r0, %r1;", {0x00800000}, "%r0", 8},
      {"bfind.u32 %r0, %r1;", {0}, "%r0", 0xffffffff},
      {"bfe.u32 %r0, %r1, 8, 8;", {0x12345678}, "%r0", 0x56},
      {"bfe.s32 %r0, %r1, 4, 8;", {0x00000f80}, "%r0", 0xfffffff8},
      {"bfe.s32 %r0, %r1, 28, 12;", {0x90000000}, "%r0", 0xfffffff9},
      {"bfe.u64 %rd0, %rd1, 40, 64;", {0xabcdef0000000000}, "%rd0", 0xabcdef},
      {"bfe.u32 %r0, %r1, 0, 0;", {0xffffffff}, "%r0", 0},
      {"bfi.b32 %r0, %r1, %r2, 8, 8;", {0xab, 0x11223344}, "%r0", 0x1122ab44},
      {"bfi.b64 %rd0, %rd1, %rd2, 32, 32;", {0xdead, 0x1122334455667788}, "%rd0", 0x0000dead55667788},
      {"bmsk.clamp.b32 %r0, %r1, %r2;", {4, 8}, "%r0", 0xff0},
      {"szext.clamp.s32 %r0, %r1, %r2;", {0xff, 8}, "%r0", 0xffffffff},
      {"szext.wrap.u32 %r0, %r1, %r2;", {0xfff, 8}, "%r0", 0xff},
      {"dp4a.s32.s32 %r0, %r1, %r2, %r3;", {0xff010203, 0x01010101, 10}, "%r0", 15},
      {"dp4a.u32.u32 %r0, %r1, %r2, %r3;", {0xff010203, 0x01010101, 10}, "%r0", 271},
      {"dp2a.lo.u32.u32 %r0, %r1, %r2, %r3;", {0x00030002, 0x04030201, 1}, "%r0", 2 + 6 + 1},
      {"dp2a.hi.s32.s32 %r0, %r1, %r2, %r3;", {0xffff0002, 0x04030201, 1}, "%r0", 3},
  };
}

std::vector<Case> bits() {
  return {
      {"and.b32 %r0, %r1, %r2;", {0xff00, 0x0ff0}, "%r0", 0x0f00},
      {"or.b16 %h0, %h1, %h2;", {0xf000, 0x000f}, "%h0", 0xf00f},
      {"xor.b64 %rd0, %rd1, %rd2;", {~0ull, 1}, "%rd0", ~1ull},
      {"not.b32 %r0, %r1;", {0}, "%r0", 0xffffffff},
      {"cnot.b32 %r0, %r1;", {0}, "%r0", 1},
      {"cnot.b32 %r0, %r1;", {4}, "%r0", 0},
      {"lop3.b32 %r0, %r1, %r2, %r3, 0x96;", {0xf0f0, 0xcccc, 0xaaaa}, "%r0", 0xf0f0 ^ 0xcccc ^ 0xaaaa},
      {"lop3.b32 %r0, %r1, %r2, %r3, 0xe8;", {0xf0, 0xcc, 0xaa}, "%r0", 0xe8},
      {"lop3.b32 %r0, %r1, %r2, %r3, 0x80;", {0xf0, 0xcc, 0xaa}, "%r0", 0x80},
      {"shl.b32 %r0, %r1, %r2;", {1, 31}, "%r0", 0x80000000},
      {"shl.b32 %r0, %r1, %r2;", {1, 32}, "%r0", 0},
      {"shl.b64 %rd0, %rd1, %r2;", {1, 40}, "%rd0", 1ull << 40},
      {"shr.u32 %r0, %r1, %r2;", {0x80000000, 200}, "%r0", 0},
      {"shr.s32 %r0, %r1, %r2;", {0x80000000, 200}, "%r0", 0xffffffff},
      {"shr.b16 %h0, %h1, %r2;", {0x8000, 4}, "%h0", 0x0800},
      {"shr.s16 %h0, %h1, %r2;", {0x8000, 4}, "%h0", 0xf800},
      {"shf.l.wrap.b32 %r0, %r1, %r2, %r3;", {0x80000000, 1, 33}, "%r0", 3},
      {"shf.l.clamp.b32 %r0, %r1, %r2, %r3;", {0x80000001, 1, 40}, "%r0", 0x80000001},
      {"shf.r.wrap.b32 %r0, %r1, %r2, %r3;", {0x10, 0xf, 4}, "%r0", 0xf0000001},
      {"shf.r.clamp.b32 %r0, %r1, %r2, %r3;", {0x10, 0xf, 32}, "%r0", 0xf},
      {"prmt.b32 %r0, %r1, %r2, %r3;", {0x33221100, 0x77665544, 0x7531}, "%r0", 0x77553311},
      {"prmt.b32 %r0, %r1, %r2, 0x0008;", {0x00000080, 0}, "%r0", 0x808080ff},
      {"prmt.b32.f4e %r0, %r1, %r2, %r3;", {0x33221100, 0x77665544, 3}, "%r0", 0x66554433},
      {"prmt.b32.b4e %r0, %r1, %r2, %r3;", {0x33221100, 0x77665544, 0}, "%r0", 0x55667700},
      {"prmt.b32.rc8 %r0, %r1, %r2, %r3;", {0x33221100, 0x77665544, 2}, "%r0", 0x22222222},
      {"prmt.b32.ecl %r0, %r1, %r2, %r3;", {0x33221100, 0x77665544, 2}, "%r0", 0x33222222},
      {"prmt.b32.ecr %r0, %r1, %r2, %r3;", {0x33221100, 0x77665544, 2}, "%r0", 0x22221100},
      {"prmt.b32.rc16 %r0, %r1, %r2, %r3;", {0x33221100, 0x77665544, 1}, "%r0", 0x33223322},
      {"mov.b64 %rd0, {%r1, %r2};", {0x11, 0x22}, "%rd0", 0x2200000011},
      {"mov.b64 {%r5, %r0}, %rd1;", {0x2200000011}, "%r0", 0x22},
      {"mov.b32 %r0, {%h1, %h2};", {0x1111, 0x2222}, "%r0", 0x22221111},
      {"mov.b64 {%h5, %h6, %h0, %h7}, %rd1;", {0x4444333322221111}, "%h0", 0x3333},
      {"mov.b64 {_, %r0}, %rd1;", {0x2200000011}, "%r0", 0x22},
      {"mov.f32 %f0, 0f40490FDB;", {}, "%f0", 0x40490fdb},
      {"mov.f64 %d0, 0d400921FB54442D18;", {}, "%d0", 0x400921fb54442d18},
      {"mov.f32 %f0, 1.5;", {}, "%f0", F(1.5f)},
      {"mov.b32 %r0, 0f3F800000;", {}, "%r0", 0x3f800000},
      {"mov.u32 %r0, WARP_SZ;", {}, "%r0", 32},
  };
}

std::vector<Case> predicates() {
  return {
      {"setp.lt.s32 %p0, %r1, %r2;", {uint64_t(-1), 1}, "%p0", 1},
      {"setp.lt.u32 %p0, %r1, %r2;", {uint64_t(-1), 1}, "%p0", 0},
      {"setp.lo.u32 %p0, %r1, %r2;", {1, uint64_t(-1)}, "%p0", 1},
      {"setp.hs.u32 %p0, %r1, %r2;", {1, 1}, "%p0", 1},
      {"setp.eq.b64 %p0, %rd1, %rd2;", {1ull << 40, 1ull << 40}, "%p0", 1},
      {"setp.ne.s16 %p0, %h1, %h2;", {0x10001, 1}, "%p0", 0},
      {"setp.eq.s32 %p1|%p0, %r1, %r2;", {1, 2}, "%p0", 1},
      {"setp.eq.s32 %p1, %r1, 1; setp.lt.and.s32 %p0, %r1, %r2, %p1;", {1, 2}, "%p0", 1},
      {"setp.eq.s32 %p1, %r1, 1; setp.lt.and.s32 %p0, %r1, %r2, !%p1;", {1, 2}, "%p0", 0},
      {"setp.eq.s32 %p1, %r1, 1; setp.lt.xor.s32 %p2|%p0, %r1, %r2, %p1;", {1, 2}, "%p0", 1},
      {"setp.lt.f32 %p0, %f1, %f2;", {F(1), F(2)}, "%p0", 1},
      {"setp.lt.f32 %p0, %f1, %f2;", {F(NAN), F(2)}, "%p0", 0},
      {"setp.ltu.f32 %p0, %f1, %f2;", {F(NAN), F(2)}, "%p0", 1},
      {"setp.geu.f64 %p0, %d1, %d2;", {D(1), D(2)}, "%p0", 0},
      {"setp.neu.f32 %p0, %f1, %f1;", {F(NAN)}, "%p0", 1},
      {"setp.ne.f32 %p0, %f1, %f1;", {F(NAN)}, "%p0", 0},
      {"setp.num.f32 %p0, %f1, %f2;", {F(1), F(NAN)}, "%p0", 0},
      {"setp.nan.f64 %p0, %d1, %d2;", {D(1), D(NAN)}, "%p0", 1},
      {"setp.gt.ftz.f32 %p0, %f1, %f2;", {F(1e-40f), F(0)}, "%p0", 0},
      {"setp.gt.f16 %p0, %h1, %h2;", {0x3c00, 0xbc00}, "%p0", 1},
      {"setp.lt.f16x2 %p1|%p0, %r1, %r2;", {0x3c00bc00, 0x40000000}, "%p0", 1},
      {"set.lt.u32.s32 %r0, %r1, %r2;", {1, 2}, "%r0", 0xffffffff},
      {"set.lt.f32.f32 %f0, %f1, %f2;", {F(1), F(2)}, "%f0", F(1)},
      {"set.eq.f16x2.f16x2 %r0, %r1, %r2;", {0x3c004000, 0x3c003c00}, "%r0", 0x3c000000},
      {"set.gtu.u32.bf16x2 %r0, %r1, %r2;", {0x3f80ffff, 0x40000000}, "%r0", 0x0000ffff},
      {"setp.eq.s32 %p1, %r1, 1; set.eq.and.u32.u32 %r0, %r1, 1, %p1;", {1}, "%r0", 0xffffffff},
      {"setp.eq.s32 %p1, %r1, 1; and.pred %p0, %p1, %p1;", {1}, "%p0", 1},
      {"setp.eq.s32 %p1, %r1, 1; not.pred %p0, %p1;", {1}, "%p0", 0},
      {"setp.eq.s32 %p1, %r1, 1; xor.pred %p0, %p1, 1;", {1}, "%p0", 0},
      {"setp.eq.s32 %p1, %r1, 1; mov.pred %p0, %p1;", {1}, "%p0", 1},
      {"setp.eq.s32 %p1, %r1, 1; selp.b32 %r0, %r2, %r3, %p1;", {1, 20, 30}, "%r0", 20},
      {"setp.eq.s32 %p1, %r1, 1; selp.f32 %f0, %f2, %f3, !%p1;", {1, F(20), F(30)}, "%f0", F(30)},
      {"slct.u32.s32 %r0, %r1, %r2, %r3;", {1, 2, uint64_t(-1)}, "%r0", 2},
      {"slct.f32.f32 %f0, %f1, %f2, %f3;", {F(1), F(2), F(-0.0f)}, "%f0", F(1)},
      {"mov.u32 %r0, 1; setp.eq.s32 %p1, %r1, 1; @%p1 mov.u32 %r0, 2;", {1}, "%r0", 2},
      {"mov.u32 %r0, 1; setp.eq.s32 %p1, %r1, 1; @!%p1 mov.u32 %r0, 2;", {1}, "%r0", 1},
      {"testp.finite.f32 %p0, %f1;", {F(inf)}, "%p0", 0},
      {"testp.infinite.f64 %p0, %d1;", {D(inf)}, "%p0", 1},
      {"testp.notanumber.f32 %p0, %f1;", {F(NAN)}, "%p0", 1},
      {"testp.subnormal.f32 %p0, %f1;", {F(1e-40f)}, "%p0", 1},
      {"testp.normal.f32 %p0, %f1;", {F(1e-40f)}, "%p0", 0},
  };
}

std::vector<Case> floats() {
  return {
      {"add.f32 %f0, %f1, %f2;", {F(1.5f), F(2.25f)}, "%f0", F(3.75f)},
      {"add.rn.f32 %f0, %f1, %f2;", {F(1), F(0x1p-24f)}, "%f0", F(1)},
      {"add.rp.f32 %f0, %f1, %f2;", {F(1), F(0x1p-60f)}, "%f0", F(0x1.000002p0f)},
      {"add.rm.f32 %f0, %f1, %f2;", {F(1), F(-0x1p-60f)}, "%f0", F(0x1.fffffep-1f)},
      {"add.rz.f32 %f0, %f1, %f2;", {F(-1), F(0x1p-60f)}, "%f0", F(-0x1.fffffep-1f)},
      {"add.rm.f32 %f0, %f1, %f2;", {F(1), F(-1)}, "%f0", F(-0.0f)},
      {"add.rz.f32 %f0, %f1, %f1;", {F(0x1.8p127f)}, "%f0", F(0x1.fffffep127f)},
      {"add.rp.f64 %d0, %d1, %d2;", {D(1), D(0x1p-80)}, "%d0", D(0x1.0000000000001p0)},
      {"sub.f32 %f0, %f1, %f2;", {F(1), F(2)}, "%f0", F(-1)},
      {"sub.rm.f32 %f0, %f1, %f2;", {F(1), F(0x1p-60f)}, "%f0", F(0x1.fffffep-1f)},
      {"add.ftz.f32 %f0, %f1, %f2;", {F(1e-40f), F(0)}, "%f0", F(0)},
      {"add.f32 %f0, %f1, %f2;", {F(1e-40f), F(0)}, "%f0", F(1e-40f)},
      {"mul.ftz.f32 %f0, %f1, %f2;", {F(-1e-30f), F(1e-10f)}, "%f0", F(-0.0f)},
      {"add.sat.f32 %f0, %f1, %f2;", {F(1), F(2)}, "%f0", F(1)},
      {"mul.sat.f32 %f0, %f1, %f2;", {F(NAN), F(2)}, "%f0", F(0)},
      {"mul.f32 %f0, %f1, %f2;", {F(3), F(0.5f)}, "%f0", F(1.5f)},
      {"mul.rp.f32 %f0, %f1, %f1;", {F(0x1.000002p0f)}, "%f0", F(0x1.000006p0f)},
      {"mul.rz.f32 %f0, %f1, %f1;", {F(0x1.000002p0f)}, "%f0", F(0x1.000004p0f)},
      {"mul.rp.f32 %f0, %f1, %f1;", {F(1e-30f)}, "%f0", F(0x1p-149f)},
      {"mul.rm.f64 %d0, %d1, %d2;", {D(0.1), D(3)}, "%d0", D(0.3)},
      {"fma.rn.f32 %f0, %f1, %f1, %f2;", {F(0x1.001p0f), F(-1)}, "%f0", F(0x1.0008p-11f)},
      {"fma.rm.f32 %f0, %f1, %f2, %f3;", {F(1), F(1), F(-0x1p-70f)}, "%f0", F(0x1.fffffep-1f)},
      {"fma.rz.f32 %f0, %f1, %f2, %f3;", {F(1), F(1), F(-0x1p-70f)}, "%f0", F(0x1.fffffep-1f)},
      {"fma.rp.f32 %f0, %f1, %f2, %f3;", {F(1), F(1), F(0x1p-70f)}, "%f0", F(0x1.000002p0f)},
      {"fma.rp.f32 %f0, %f1, %f2, %f3;", {F(1), F(1), F(-0x1p-70f)}, "%f0", F(1)},
      {"fma.rn.ftz.sat.f32 %f0, %f1, %f2, %f3;", {F(2), F(3), F(-5.5f)}, "%f0", F(0.5f)},
      {"fma.rn.f64 %d0, %d1, %d1, %d2;", {D(0x1.0000002p0), D(-1)}, "%d0", D(0x1.0000001p-26)},
      {"fma.rz.f64 %d0, %d1, %d2, %d3;", {D(1), D(1), D(-0x1p-200)}, "%d0", D(0x1.fffffffffffffp-1)},
      {"mad.rn.f32 %f0, %f1, %f2, %f3;", {F(2), F(3), F(4)}, "%f0", F(10)},
      {"div.rn.f32 %f0, %f1, %f2;", {F(1), F(3)}, "%f0", F(1.0f / 3.0f)},
      {"div.rp.f32 %f0, %f1, %f2;", {F(1), F(3)}, "%f0", F(0x1.555556p-2f)},
      {"div.rm.f32 %f0, %f1, %f2;", {F(1), F(3)}, "%f0", F(0x1.555554p-2f)},
      {"div.rz.f32 %f0, %f1, %f2;", {F(-1), F(3)}, "%f0", F(-0x1.555554p-2f)},
      {"div.rm.f32 %f0, %f1, %f2;", {F(1), F(-3)}, "%f0", F(-0x1.555556p-2f)},
      {"div.full.f32 %f0, %f1, %f2;", {F(6), F(3)}, "%f0", F(2)},
      {"div.approx.ftz.f32 %f0, %f1, %f2;", {F(1), F(0)}, "%f0", F(inf)},
      {"div.rn.f64 %d0, %d1, %d2;", {D(1), D(3)}, "%d0", D(1.0 / 3.0)},
      {"div.rp.f64 %d0, %d1, %d2;", {D(1), D(3)}, "%d0", D(0x1.5555555555556p-2)},
      {"sqrt.rn.f32 %f0, %f1;", {F(2)}, "%f0", F(std::sqrt(2.0f))},
      {"sqrt.rp.f32 %f0, %f1;", {F(2)}, "%f0", F(0x1.6a09e8p0f)},
      {"sqrt.rm.f32 %f0, %f1;", {F(2)}, "%f0", F(0x1.6a09e6p0f)},
      {"sqrt.rn.f64 %d0, %d1;", {D(2)}, "%d0", D(std::sqrt(2.0))},
      {"sqrt.rm.f64 %d0, %d1;", {D(2)}, "%d0", D(0x1.6a09e667f3bccp0)},
      {"sqrt.rp.f64 %d0, %d1;", {D(2)}, "%d0", D(0x1.6a09e667f3bcdp0)},
      {"sqrt.approx.f32 %f0, %f1;", {F(9)}, "%f0", F(3)},
      {"rcp.rn.f32 %f0, %f1;", {F(3)}, "%f0", F(1.0f / 3)},
      {"rcp.rz.f32 %f0, %f1;", {F(3)}, "%f0", F(0x1.555554p-2f)},
      {"rcp.approx.ftz.f32 %f0, %f1;", {F(4)}, "%f0", F(0.25f)},
      {"rcp.approx.ftz.f64 %d0, %d1;", {D(4)}, "%d0", D(0.25)},
      {"rsqrt.approx.f32 %f0, %f1;", {F(16)}, "%f0", F(0.25f)},
      {"rsqrt.approx.f64 %d0, %d1;", {D(16)}, "%d0", D(0.25)},
      {"ex2.approx.f32 %f0, %f1;", {F(10)}, "%f0", F(1024)},
      {"ex2.approx.ftz.f32 %f0, %f1;", {F(-130)}, "%f0", F(0)},
      {"lg2.approx.f32 %f0, %f1;", {F(8)}, "%f0", F(3)},
      {"sin.approx.f32 %f0, %f1;", {F(0.5f)}, "%f0", F(float(std::sin(0.5)))},
      {"cos.approx.ftz.f32 %f0, %f1;", {F(0)}, "%f0", F(1)},
      {"tanh.approx.f32 %f0, %f1;", {F(100)}, "%f0", F(1)},
      {"abs.f32 %f0, %f1;", {F(-2)}, "%f0", F(2)},
      {"neg.f64 %d0, %d1;", {D(2)}, "%d0", D(-2)},
      {"neg.ftz.f32 %f0, %f1;", {F(1e-40f)}, "%f0", F(-0.0f)},
      {"min.f32 %f0, %f1, %f2;", {F(NAN), F(2)}, "%f0", F(2)},
      {"max.f32 %f0, %f1, %f2;", {F(0), F(-0.0f)}, "%f0", F(0)},
      {"min.f32 %f0, %f1, %f2;", {F(0), F(-0.0f)}, "%f0", F(-0.0f)},
      {"max.NaN.f32 %f5, %f1, %f2; setp.nan.f32 %p0, %f5, %f5;", {F(NAN), F(2)}, "%p0", 1},
      {"max.f64 %d0, %d1, %d2;", {D(-3), D(2)}, "%d0", D(2)},
      {"copysign.f32 %f0, %f1, %f2;", {F(-1), F(5)}, "%f0", F(-5)},
      {"copysign.f64 %d0, %d1, %d2;", {D(1), D(-5)}, "%d0", D(5)},
  };
}

std::vector<Case> halves() {
  return {
      {"add.f16 %h0, %h1, %h2;", {0x3c00, 0x4000}, "%h0", 0x4200},
      {"sub.f16 %h0, %h1, %h2;", {0x3c00, 0x4000}, "%h0", 0xbc00},
      {"mul.f16 %h0, %h1, %h2;", {0x4200, 0x4200}, "%h0", 0x4880},
      {"fma.rn.f16 %h0, %h1, %h2, %h3;", {0x4000, 0x4200, 0x3c00}, "%h0", 0x4700},
      {"fma.rn.relu.f16 %h0, %h1, %h2, %h3;", {0x4000, 0xc200, 0x3c00}, "%h0", 0},
      {"add.f16x2 %r0, %r1, %r2;", {0x3c004000, 0x3c003c00}, "%r0", 0x40004200},
      {"fma.rn.f16x2 %r0, %r1, %r2, %r3;", {0x3c004000, 0x40004000, 0x3c003c00}, "%r0", 0x42004500},
      {"mul.bf16 %h0, %h1, %h2;", {0x4000, 0x4040}, "%h0", 0x40c0},
      {"fma.rn.bf16 %h0, %h1, %h2, %h3;", {0x4000, 0x4040, 0x3f80}, "%h0", 0x40e0},
      {"add.f16 %h0, %h1, %h2;", {0x7bff, 0x7bff}, "%h0", 0x7c00},
      {"add.f16 %h0, %h1, %h1;", {0x0001}, "%h0", 0x0002},
      {"abs.f16x2 %r0, %r1;", {0xbc00c000}, "%r0", 0x3c004000},
      {"neg.bf16 %h0, %h1;", {0x3f80}, "%h0", 0xbf80},
      {"max.f16 %h0, %h1, %h2;", {0x3c00, 0xc000}, "%h0", 0x3c00},
      {"min.bf16x2 %r0, %r1, %r2;", {0x3f804000, 0x40003f80}, "%r0", 0x3f803f80},
      {"ex2.approx.f16 %h0, %h1;", {0x4200}, "%h0", 0x4800},
      {"tanh.approx.f16 %h0, %h1;", {0x0000}, "%h0", 0},
      {"cvt.f32.f16 %f0, %h1;", {0x3555}, "%f0", F(0x1.554p-2f)},
      {"cvt.f32.f16 %f0, %h1;", {0x8001}, "%f0", F(-0x1p-24f)},
      {"cvt.f32.f16 %f0, %h1;", {0xfc00}, "%f0", F(-inf)},
      {"cvt.f32.bf16 %f0, %h1;", {0x3fc0}, "%f0", F(1.5f)},
      {"cvt.f64.f16 %d0, %h1;", {0x3c00}, "%d0", D(1)},
      {"cvt.rn.f16.f32 %h0, %f1;", {F(65519)}, "%h0", 0x7bff},
      {"cvt.rn.f16.f32 %h0, %f1;", {F(65520)}, "%h0", 0x7c00},
      {"cvt.rz.f16.f32 %h0, %f1;", {F(70000)}, "%h0", 0x7bff},
      {"cvt.rn.f16.f32 %h0, %f1;", {F(0x1.002p0f)}, "%h0", 0x3c00},
      {"cvt.rn.f16.f32 %h0, %f1;", {F(0x1.006p0f)}, "%h0", 0x3c02},
      {"cvt.rn.f16.f32 %h0, %f1;", {F(0x1p-25f)}, "%h0", 0},
      {"cvt.rn.f16.f32 %h0, %f1;", {F(0x1.8p-25f)}, "%h0", 1},
      {"cvt.rn.bf16.f32 %h0, %f1;", {0x3f808000}, "%h0", 0x3f80},
      {"cvt.rn.bf16.f32 %h0, %f1;", {0x3f818000}, "%h0", 0x3f82},
      {"cvt.rz.bf16.f32 %h0, %f1;", {0x3f81ffff}, "%h0", 0x3f81},
      {"cvt.rn.relu.bf16.f32 %h0, %f1;", {F(-1)}, "%h0", 0},
      {"cvt.rn.f16x2.f32 %r0, %f1, %f2;", {F(1), F(2)}, "%r0", 0x3c004000},
      {"cvt.rna.tf32.f32 %r0, %f1;", {0x3f800fff}, "%r0", 0x3f800000},
      {"cvt.rna.tf32.f32 %r0, %f1;", {0xbf801000}, "%r0", 0xbf802000}, // ties away from zero
      {"cvt.rna.tf32.f32 %r0, %f1;", {0x7f7fffff}, "%r0", 0x7f800000},
      {"cvt.rna.tf32.f32 %r0, %f1;", {F(-inf)}, "%r0", 0xff800000},
      {"cvt.rna.tf32.f32 %r0, %f1;", {0xffc00001}, "%r0", 0x7fffffff},
      {"cvt.rn.bf16x2.f32 %r0, %f1, %f2;", {F(1), F(2)}, "%r0", 0x3f804000},
      {"cvt.rn.f16.f64 %h0, %d1;", {D(1 + 0x1p-11 + 0x1p-40)}, "%h0", 0x3c01},
      {"cvt.rn.f16.s32 %h0, %r1;", {uint64_t(-3)}, "%h0", 0xc200},
      {"cvt.rni.s32.f16 %r0, %h1;", {0x4100}, "%r0", 2},
  };
}

std::vector<Case> conversions() {
  return {
      {"cvt.u64.u32 %rd0, %r1;", {0xffffffff}, "%rd0", 0xffffffff},
      {"cvt.s64.s32 %rd0, %r1;", {0xffffffff}, "%rd0", ~0ull},
      {"cvt.u32.u64 %r0, %rd1;", {0x1234567890}, "%r0", 0x34567890},
      {"cvt.s32.s8 %r0, %r1;", {0x80}, "%r0", 0xffffff80},
      {"cvt.u16.u32 %h0, %r1;", {0x12345}, "%h0", 0x2345},
      {"cvt.sat.u8.s32 %r0, %r1;", {300}, "%r0", 255},
      {"cvt.sat.u8.s32 %r0, %r1;", {uint64_t(-5)}, "%r0", 0},
      {"cvt.sat.s8.s32 %r0, %r1;", {uint64_t(-500)}, "%r0", 0xffffff80},
      {"cvt.sat.s32.u64 %r0, %rd1;", {~0ull}, "%r0", 0x7fffffff},
      {"cvt.rn.f32.s32 %f0, %r1;", {uint64_t(-16777217)}, "%f0", F(-16777216)},
      {"cvt.rp.f32.s32 %f0, %r1;", {16777217}, "%f0", F(16777218)},
      {"cvt.rz.f32.u64 %f0, %rd1;", {~0ull}, "%f0", F(0x1.fffffep63f)},
      {"cvt.rn.f64.u64 %d0, %rd1;", {~0ull}, "%d0", D(0x1p64)},
      {"cvt.rm.f64.s64 %d0, %rd1;", {uint64_t(-9007199254740993)}, "%d0", D(-9007199254740994.0)},
      {"cvt.rn.sat.f32.s32 %f0, %r1;", {7}, "%f0", F(1)},
      {"cvt.rzi.s32.f32 %r0, %f1;", {F(-2.7f)}, "%r0", 0xfffffffe},
      {"cvt.rmi.s32.f32 %r0, %f1;", {F(-2.1f)}, "%r0", 0xfffffffd},
      {"cvt.rpi.s32.f32 %r0, %f1;", {F(2.1f)}, "%r0", 3},
      {"cvt.rni.s32.f32 %r0, %f1;", {F(2.5f)}, "%r0", 2},
      {"cvt.rni.s32.f32 %r0, %f1;", {F(3.5f)}, "%r0", 4},
      {"cvt.rzi.u32.f32 %r0, %f1;", {F(-5)}, "%r0", 0},
      {"cvt.rzi.s32.f32 %r0, %f1;", {F(1e20f)}, "%r0", 0x7fffffff},
      {"cvt.rzi.s32.f32 %r0, %f1;", {F(NAN)}, "%r0", 0},
      {"cvt.rzi.s64.f64 %rd0, %d1;", {D(-1e300)}, "%rd0", 1ull << 63},
      {"cvt.rzi.u64.f32 %rd0, %f1;", {F(0x1p40f)}, "%rd0", 1ull << 40},
      {"cvt.rzi.sat.u8.f32 %r0, %f1;", {F(300)}, "%r0", 255},
      {"cvt.rni.f32.f32 %f0, %f1;", {F(-0.5f)}, "%f0", F(-0.0f)},
      {"cvt.rmi.f64.f64 %d0, %d1;", {D(-0.5)}, "%d0", D(-1)},
      {"cvt.sat.f32.f32 %f0, %f1;", {F(1.5f)}, "%f0", F(1)},
      {"cvt.ftz.f32.f32 %f0, %f1;", {F(1e-40f)}, "%f0", F(0)},
      {"cvt.f64.f32 %d0, %f1;", {F(0.1f)}, "%d0", D(double(0.1f))},
      {"cvt.rn.f32.f64 %f0, %d1;", {D(0.1)}, "%f0", F(0.1f)},
      {"cvt.rm.f32.f64 %f0, %d1;", {D(0.1)}, "%f0", F(std::nextafter(0.1f, 0.0f))},
      {"cvt.rp.f32.f64 %f0, %d1;", {D(1e300)}, "%f0", F(inf)},
      {"cvt.rz.f32.f64 %f0, %d1;", {D(1e300)}, "%f0", F(0x1.fffffep127f)},
      {"cvt.rz.f32.f64 %f0, %d1;", {D(1e-300)}, "%f0", F(0)},
  };
}

std::vector<Case> control() {
  return {
      {"mov.u32 %r0, 0; mov.u32 %r5, 0; loop: add.s32 %r0, %r0, %r5; add.s32 %r5, %r5, 1; setp.lt.s32 %p1, %r5, %r1; @%p1 bra loop;", {10}, "%r0", 45},
      {"mov.u32 %r0, 1; bra.uni over; mov.u32 %r0, 2; over:", {}, "%r0", 1},
      {"table: .branchtargets a, b, c; brx.idx %r1, table; a: mov.u32 %r0, 10; bra end; b: mov.u32 %r0, 11; bra end; c: mov.u32 %r0, 12; end:",
       {2}, "%r0", 12},
      {"{ .reg .b32 %r0x; mov.u32 %r0x, 5; { .reg .b32 %r0x; mov.u32 %r0x, 6; } mov.u32 %r0, %r0x; }", {}, "%r0", 5},
      {"{ .param .b32 a; .param .b32 result; st.param.b32 [a], %r1; call.uni (result), twice, (a); ld.param.b32 %r0, [result]; }", {21}, "%r0", 42},
      {"call (%r0), sum_of_registers, (%r1, %r2);", {3, 4}, "%r0", 7},
      {"{ .param .align 4 .b8 s[8]; .param .b32 result; st.param.b32 [s], %r1; st.param.b32 [s+4], %r2;\n call (result), second, (s);"
       "ld.param.b32 %r0, [result]; }", {3, 4}, "%r0", 4},
      {"mov.u32 %r0, 7; setp.eq.s32 %p1, %r1, 3; @%p1 call note;", {3}, "%r0", 7},
      {"ld.const.u32 %r0, [numbers+8];", {}, "%r0", 30},
      {"mov.u64 %rd5, numbers; ld.const.u32 %r0, [%rd5+4];", {}, "%r0", 20},
      {"cvta.const.u64 %rd5, numbers; ld.u32 %r0, [%rd5];", {}, "%r0", 10},
      {"ld.global.u64 %rd5, [place]; ld.u32 %r0, [%rd5];", {}, "%r0", 20},
      {"ld.global.f32 %f0, [halfpi];", {}, "%f0", 0x3fc90fdb},
      {"atom.global.add.u32 %r0, [counter], 5; ld.global.u32 %r0, [counter];", {}, "%r0", 105},
      {".local .align 8 .b8 depot[16]; mov.u64 %rd5, depot; cvta.local.u64 %rd6, %rd5; st.local.u32 [%rd5+4], %r1; ld.u32 %r0, [%rd6+4];", {77}, "%r0", 77},
      {".local .b32 here; st.local.b32 [here], %r1; ld.local.b32 %r0, [here];", {78}, "%r0", 78},
      {".shared .align 4 .b8 tile[64]; mov.u32 %r5, tile; st.shared.u32 [%r5+8], %r1; cvta.shared.u64 %rd5, tile; ld.u32 %r0, [%rd5+8];", {79}, "%r0", 79},
      {".shared .align 4 .b8 tile[64]; mov.u64 %rd5, tile; cvta.shared.u64 %rd6, %rd5; cvta.to.shared.u64 %rd7, %rd6; st.u32 [%rd6], %r1;"
       "ld.shared.u32 %r0, [%rd7];", {80}, "%r0", 80},
      {".shared .b32 word; mov.u64 %rd5, word; cvta.shared.u64 %rd6, %rd5; isspacep.shared %p0, %rd6;", {}, "%p0", 1},
      {".shared .b32 word; mov.u64 %rd5, word; cvta.shared.u64 %rd6, %rd5; isspacep.global %p0, %rd6;", {}, "%p0", 0},
      {".local .align 16 .b8 four[16]; st.local.v4.b32 [four], {%r1, %r2, %r3, %r4}; ld.local.v2.b32 {_, %r0}, [four+8];", {1, 2, 3, 4}, "%r0", 4},
      {".local .b8 byte; st.local.u8 [byte], %r1; ld.local.s8 %r0, [byte];", {0x1ff}, "%r0", 0xffffffff},
      {"mov.u32 %r0, %laneid;", {}, "%r0", 0},
      {"mov.u32 %r0, %ntid.x;", {}, "%r0", 1},
      {"mov.u32 %r0, %lanemask_le;", {}, "%r0", 1},
      {"mov.u32 %r0, %lanemask_gt;", {}, "%r0", 0xfffffffe},
      {"activemask.b32 %r0;", {}, "%r0", 1},
      {"cvt.u64.u32 %rd0, %nctaid.y;", {}, "%rd0", 1},
      {"mov.u32 %r0, 3; exit; mov.u32 %r0, 4;", {}, "", 0},
  };
}

std::vector<Case> atomics() {
  return {
      {".shared .b32 w; st.shared.b32 [w], %r1; atom.shared.add.u32 %r0, [w], %r2; ld.shared.b32 %r0, [w];", {5, 6}, "%r0", 11},
      {".shared .b32 w; st.shared.b32 [w], %r1; atom.shared.exch.b32 %r0, [w], %r2;", {5, 6}, "%r0", 5},
      {".shared .b32 w; st.shared.b32 [w], %r1; atom.shared.cas.b32 %r5, [w], 5, %r2; ld.shared.b32 %r0, [w];", {5, 6}, "%r0", 6},
      {".shared .b32 w; st.shared.b32 [w], %r1; atom.shared.cas.b32 %r5, [w], 4, %r2; ld.shared.b32 %r0, [w];", {5, 6}, "%r0", 5},
      {".shared .b32 w; st.shared.b32 [w], %r1; atom.shared.min.s32 %r5, [w], %r2; ld.shared.b32 %r0, [w];", {5, uint64_t(-6)}, "%r0", 0xfffffffa},
      {".shared .b32 w; st.shared.b32 [w], %r1; atom.shared.max.u32 %r5, [w], %r2; ld.shared.b32 %r0, [w];", {5, uint64_t(-6)}, "%r0", 0xfffffffa},
      {".shared .b32 w; st.shared.b32 [w], %r1; red.shared.and.b32 [w], %r2; ld.shared.b32 %r0, [w];", {7, 12}, "%r0", 4},
      {".shared .b32 w; st.shared.b32 [w], %r1; red.shared.or.b32 [w], %r2; ld.shared.b32 %r0, [w];", {7, 12}, "%r0", 15},
      {".shared .b64 w; st.shared.b64 [w], %rd1; red.shared.xor.b64 [w], %rd2; ld.shared.b64 %rd0, [w];", {7, 12}, "%rd0", 11},
      {".shared .b32 w; st.shared.b32 [w], %r1; red.shared.inc.u32 [w], %r2; ld.shared.b32 %r0, [w];", {7, 7}, "%r0", 0},
      {".shared .b32 w; st.shared.b32 [w], %r1; red.shared.dec.u32 [w], %r2; ld.shared.b32 %r0, [w];", {0, 7}, "%r0", 7},
      {".shared .f32 w; st.shared.f32 [w], %f1; atom.shared.add.f32 %f5, [w], %f2; ld.shared.f32 %f0, [w];", {F(1), F(2)}, "%f0", F(3)},
      {".shared .f64 w; st.shared.f64 [w], %d1; red.relaxed.cta.shared.add.f64 [w], %d2; ld.shared.f64 %d0, [w];", {D(1), D(2)}, "%d0", D(3)},
      {".shared .b32 w; st.shared.b32 [w], %r1; atom.shared.add.noftz.f16x2 %r5, [w], %r2; ld.shared.b32 %r0, [w];", {0x3c003c00, 0x3c004000}, "%r0",
       0x40004200},
      {"atom.acq_rel.gpu.global.add.s32 %r0, [counter], 1;", {}, "%r0", 100},
      {"cvta.global.u64 %rd5, counter; atom.add.u32 %r0, [%rd5], 1; membar.gl; fence.acq_rel.gpu; fence.sc.sys; membar.cta;", {}, "%r0", 100},
      {"red.global.gpu.add.u32 [counter], 3; ld.relaxed.gpu.global.u32 %r0, [counter];", {}, "%r0", 103},
      {"st.volatile.global.u32 [counter], 9; ld.volatile.global.u32 %r0, [counter];", {}, "%r0", 9},
  };
}

/// One module with a kernel for each case.
void runAll(const std::vector<Case> &cases) {
  std::string ptx = R"(.version 8.0
.target sm_90
.address_size 64
.const .align 4 .u32 numbers[4] = {10, 20, 30, 40};
.global .align 8 .u64 place = generic(numbers)+4;
.global .f32 halfpi = 0f3FC90FDB;
.global .u32 counter = 100;
.func (.param .b32 out) twice (.param .b32 in) { .reg .b32 %a; ld.param.b32 %a, [in]; add.s32 %a, %a, %a; st.param.b32 [out], %a; ret; }
.func (.reg .b32 %s) sum_of_registers (.reg .b32 %a, .reg .b32 %b) { add.s32 %s, %a, %b; ret; }
.func (.param .b32 out) second (.param .align 4 .b8 s[8]) { .reg .b32 %a; ld.param.b32 %a, [s+4]; st.param.b32 [out], %a; ret; }
.func note () { ret; }
)";
  for (size_t i = 0; i < cases.size(); ++i) {
    ptx += ".visible .entry case" + std::to_string(i) + R"((.param .u64 in, .param .u64 out) {
.reg .b64 %rd<10>; .reg .b32 %r<10>; .reg .f32 %f<10>; .reg .f64 %d<10>; .reg .b16 %h<10>; .reg .pred %p<4>; .reg .b64 %at, %to;
ld.param.u64 %at, [in]; ld.param.u64 %to, [out];
)";
    for (int k = 1; k <= 4; ++k) {
      std::string n = std::to_string(k);
      ptx += "ld.global.u64 %rd" + n + ", [%at+" + std::to_string(8 * (k - 1)) + "]; cvt.u32.u64 %r" + n + ", %rd" + n + "; mov.b32 %f" + n + ", %r" + n +
             "; mov.b64 %d" + n + ", %rd" + n + "; cvt.u16.u32 %h" + n + ", %r" + n + ";\n";
    }
    std::string result = cases[i].result;
    ptx += std::string(cases[i].body) + "\n";
    if (result == "%rd0")
      ptx += "st.global.u64 [%to], %rd0;\n";
    else if (result == "%r0")
      ptx += "st.global.u32 [%to], %r0;\n";
    else if (result == "%f0")
      ptx += "st.global.f32 [%to], %f0;\n";
    else if (result == "%d0")
      ptx += "st.global.f64 [%to], %d0;\n";
    else if (result == "%h0")
      ptx += "st.global.u16 [%to], %h0;\n";
    else if (result == "%p0")
      ptx += "selp.u32 %r9, 1, 0, %p0; st.global.u32 [%to], %r9;\n";
    ptx += "ret;\n}\n";
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(cases[i].body);
    // Variables of the module keep what a case before has left: the cases count on what they find.
    static Device *device = nullptr;
    if (i == 0) {
      delete device;
      device = new Device;
      ASSERT_NO_FATAL_FAILURE(device->load(ptx));
    }
    const Global *counter = device->module->global("counter");
    ASSERT_TRUE(counter);
    uint32_t hundred = 100;
    std::memcpy(reinterpret_cast<void *>(counter->address), &hundred, 4);
    std::vector<uint64_t> inputs = cases[i].inputs;
    inputs.resize(4);
    uint64_t in = device->upload(inputs), out = device->upload(std::vector<uint64_t>{0});
    device->launch("case" + std::to_string(i), {}, in, out);
    EXPECT_EQ(device->download<uint64_t>(out, 1)[0], cases[i].expected)
        << std::hex << "found 0x" << device->download<uint64_t>(out, 1)[0] << ", expected 0x" << cases[i].expected;
  }
}

TEST(Instructions, Integers) { runAll(integers()); }
TEST(Instructions, Bits) { runAll(bits()); }
TEST(Instructions, Predicates) { runAll(predicates()); }
TEST(Instructions, Floats) { runAll(floats()); }
TEST(Instructions, Halves) { runAll(halves()); }
TEST(Instructions, Conversions) { runAll(conversions()); }
TEST(Instructions, Control) { runAll(control()); }
TEST(Instructions, Atomics) { runAll(atomics()); }

//===----------------------------------------------------------------------===//
// Threads together
//===----------------------------------------------------------------------===//

/// A kernel whose threads each store what the body leaves in %r0.
std::string together(const char *body) {
  return std::string(R"(.version 8.0
.target sm_90
.address_size 64
.visible .entry kernel(.param .u64 out) {
.reg .b64 %rd<10>; .reg .b32 %r<10>; .reg .pred %p<4>;
mov.u32 %r1, %tid.x; mov.u32 %r2, %laneid;
)") + body + R"(
ld.param.u64 %rd1, [out]; cvta.to.global.u64 %rd1, %rd1; mad.wide.u32 %rd1, %r1, 4, %rd1; st.global.u32 [%rd1], %r0;
ret;
})";
}

void expectEach(const char *body, uint32_t threads, llvm::function_ref<uint32_t(uint32_t)> expected) {
  SCOPED_TRACE(body);
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(together(body)));
  uint64_t out = device.memory.allocate(4 * threads, "out");
  device.launch("kernel", {{1}, {threads}}, out);
  std::vector<uint32_t> found = device.download<uint32_t>(out, threads);
  for (uint32_t i = 0; i < threads; ++i)
    EXPECT_EQ(found[i], expected(i)) << "thread " << i;
}

TEST(Together, Shuffles) {
  expectEach("shfl.sync.bfly.b32 %r0, %r1, 5, 31, -1;", 64, [](uint32_t t) { return t ^ 5; });
  expectEach("shfl.sync.down.b32 %r0|%p1, %r1, 3, 31, -1; @!%p1 mov.u32 %r0, 99;", 32, [](uint32_t t) { return t + 3 < 32 ? t + 3 : 99; });
  expectEach("shfl.sync.up.b32 %r0|%p1, %r1, 3, 0, -1; @!%p1 mov.u32 %r0, 99;", 32, [](uint32_t t) { return t >= 3 ? t - 3 : 99; });
  expectEach("shfl.sync.idx.b32 %r0, %r1, 7, 31, 0xffffffff;", 40, [](uint32_t t) { return t < 32 ? 7 : 39; });
  // in segments of 8
  expectEach("shfl.sync.idx.b32 %r0, %r1, 2, 0x181f, -1;", 32, [](uint32_t t) { return t / 8 * 8 + 2; });
  expectEach("shfl.sync.down.b32 %r0|%p1, %r1, 4, 0x181f, -1; @!%p1 mov.u32 %r0, 99;", 32, [](uint32_t t) { return t % 8 < 4 ? t + 4 : 99; });
  // half of a warp each
  expectEach("setp.lt.u32 %p1, %r1, 16; @%p1 shfl.sync.bfly.b32 %r0, %r1, 1, 31, 0x0000ffff; @!%p1 shfl.sync.bfly.b32 %r0, %r1, 2, 31, 0xffff0000;", 32,
             [](uint32_t t) { return t < 16 ? t ^ 1 : t ^ 2; });
}

TEST(Together, Votes) {
  expectEach("setp.lt.u32 %p1, %r2, 5; vote.sync.ballot.b32 %r0, %p1, -1;", 64, [](uint32_t) { return 31; });
  expectEach("setp.lt.u32 %p1, %r1, 40; vote.sync.all.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;", 64, [](uint32_t t) { return t < 32; });
  expectEach("setp.eq.u32 %p1, %r1, 40; vote.sync.any.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;", 64, [](uint32_t t) { return t >= 32; });
  expectEach("setp.eq.u32 %p1, %r1, 40; vote.sync.uni.pred %p2, !%p1, -1; selp.u32 %r0, 1, 0, %p2;", 64, [](uint32_t t) { return t < 32; });
  expectEach("and.b32 %r3, %r1, 3; match.any.sync.b32 %r0, %r3, -1;", 32, [](uint32_t t) { return 0x11111111u << (t & 3); });
  expectEach("mov.u32 %r3, 9; match.all.sync.b32 %r0|%p1, %r3, -1; @!%p1 mov.u32 %r0, 0;", 32, [](uint32_t) { return ~0u; });
  expectEach("cvt.u64.u32 %rd3, %r1; match.all.sync.b64 %r0|%p1, %rd3, -1; @!%p1 mov.u32 %r0, 5;", 32, [](uint32_t) { return 5; });
}

TEST(Together, Reductions) {
  expectEach("redux.sync.add.s32 %r0, %r1, -1;", 64, [](uint32_t t) { return t < 32 ? 496 : 1520; });
  expectEach("sub.s32 %r3, %r1, 7; redux.sync.min.s32 %r0, %r3, -1;", 32, [](uint32_t) { return uint32_t(-7); });
  expectEach("sub.s32 %r3, %r1, 7; redux.sync.max.u32 %r0, %r3, -1;", 32, [](uint32_t) { return ~0u; });
  expectEach("redux.sync.or.b32 %r0, %r1, -1;", 20, [](uint32_t) { return 31; });
  expectEach("add.u32 %r3, %r1, 32; redux.sync.and.b32 %r0, %r3, -1;", 32, [](uint32_t) { return 32; });
  expectEach("redux.sync.xor.b32 %r0, %r1, 7;  mov.u32 %r0, %r0;", 3, [](uint32_t) { return 3; });
}

/// One product of a warp. What each lane holds of the factors follows the PTX ISA's own formulas, element by element.
struct Fragments {
  const char *instruction;
  unsigned steps, wordsA, wordsB, perWord;
  uint32_t (*encode)(float);
};

TEST(Together, MatrixProducts) {
  auto f16 = [](float value) { // of small whole numbers and their halves
    uint32_t bits = llvm::bit_cast<uint32_t>(value);
    return value == 0 ? 0 : (bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 0x3ff);
  };
  auto bf16 = [](float value) { return llvm::bit_cast<uint32_t>(value) >> 16; };
  auto tf32 = [](float value) { return llvm::bit_cast<uint32_t>(value) | 0x1fff; }; // the bits that TF32 has not are not looked at
  const Fragments kinds[] = {{"m16n8k8.row.col.f32.tf32.tf32.f32", 8, 4, 2, 1, tf32}, {"m16n8k4.row.col.f32.tf32.tf32.f32", 4, 2, 1, 1, tf32},
                             {"m16n8k16.row.col.f32.f16.f16.f32", 16, 4, 2, 2, f16},  {"m16n8k8.row.col.f32.f16.f16.f32", 8, 2, 1, 2, f16},
                             {"m16n8k16.row.col.f32.bf16.bf16.f32", 16, 4, 2, 2, bf16}, {"m16n8k8.row.col.f32.bf16.bf16.f32", 8, 2, 1, 2, bf16}};
  for (const Fragments &kind : kinds) {
    SCOPED_TRACE(kind.instruction);
    auto registers = [](const char *name, unsigned count) {
      std::string text = "{";
      for (unsigned i = 0; i < count; ++i)
        text += (i ? ", " : "") + std::string(name) + std::to_string(i);
      return text + "}";
    };
    // Two warps, each with factors of its own; 14 words a lane: a, b, c, and d.
    std::string ptx = ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry kernel(.param .u64 data) {\n"
                      ".reg .b64 %rd<4>; .reg .b32 %t<2>; .reg .b32 %a<4>; .reg .b32 %b<2>; .reg .f32 %c<4>; .reg .f32 %d<4>;\n"
                      "mov.u32 %t0, %tid.x; ld.param.u64 %rd1, [data]; cvta.to.global.u64 %rd1, %rd1; mad.wide.u32 %rd1, %t0, 56, %rd1;\n";
    auto load = [&](const char *name, unsigned count, unsigned from) {
      for (unsigned i = 0; i < count; ++i)
        ptx += "ld.global.b32 " + std::string(name) + std::to_string(i) + ", [%rd1+" + std::to_string(4 * (from + i)) + "];\n";
    };
    load("%a", kind.wordsA, 0);
    load("%b", kind.wordsB, 4);
    load("%c", 4, 6);
    ptx += "mma.sync.aligned." + std::string(kind.instruction) + " " + registers("%d", 4) + ", " + registers("%a", kind.wordsA) + ", " + registers("%b", kind.wordsB) + ", " +
           registers("%c", 4) + ";\n";
    for (unsigned i = 0; i < 4; ++i)
      ptx += "st.global.f32 [%rd1+" + std::to_string(40 + 4 * i) + "], %d" + std::to_string(i) + ";\n";
    ptx += "ret;\n}";

    auto a = [](unsigned warp, unsigned row, unsigned step) { return float(int((row * 7 + step * 5 + warp * 3) % 13) - 6) / 2; };
    auto b = [](unsigned warp, unsigned step, unsigned column) { return float(int((step * 3 + column * 11 + warp) % 9) - 4); };
    auto c = [](unsigned warp, unsigned row, unsigned column) { return float(row * 100 + column + warp * 7) / 8; };
    std::vector<uint32_t> words(64 * 14, 0);
    for (unsigned thread = 0; thread < 64; ++thread) {
      unsigned warp = thread / 32, group = thread % 32 / 4, inGroup = thread % 4;
      uint32_t *own = &words[thread * 14];
      for (unsigned i = 0; i < kind.wordsA * kind.perWord; ++i) {
        unsigned row, step;
        if (kind.perWord == 1) {
          row = i == 0 || i == 2 ? group : group + 8;
          step = i < 2 ? inGroup : inGroup + 4;
        } else {
          row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
          step = inGroup * 2 + (i & 1) + (i >= 4 ? 8 : 0);
        }
        own[i / kind.perWord] |= kind.encode(a(warp, row, step)) << (i % kind.perWord * 16);
      }
      for (unsigned i = 0; i < kind.wordsB * kind.perWord; ++i) {
        unsigned step = kind.perWord == 1 ? inGroup + 4 * i : inGroup * 2 + (i & 1) + (i >= 2 ? 8 : 0);
        own[4 + i / kind.perWord] |= kind.encode(b(warp, step, group)) << (i % kind.perWord * 16);
      }
      for (unsigned i = 0; i < 4; ++i)
        own[6 + i] = uint32_t(F(c(warp, i < 2 ? group : group + 8, inGroup * 2 + (i & 1))));
    }
    Device device;
    ASSERT_NO_FATAL_FAILURE(device.load(ptx));
    uint64_t data = device.upload(words);
    device.launch("kernel", {{1}, {64}}, data);
    std::vector<uint32_t> found = device.download<uint32_t>(data, words.size());
    for (unsigned thread = 0; thread < 64; ++thread)
      for (unsigned i = 0; i < 4; ++i) {
        unsigned warp = thread / 32, row = thread % 32 / 4 + (i < 2 ? 0 : 8), column = thread % 4 * 2 + (i & 1);
        float expected = c(warp, row, column);
        for (unsigned step = 0; step < kind.steps; ++step)
          expected += a(warp, row, step) * b(warp, step, column);
        EXPECT_EQ(llvm::bit_cast<float>(found[thread * 14 + 10 + i]), expected) << "thread " << thread << ", element " << i;
      }
  }
}

TEST(Together, LoadsOfMatrices) {
  // Row t of 32 holds 8 numbers of 16 bits, 8 t on.
  std::string rows = ".shared .align 16 .b8 s[512]; mov.u32 %r4, s; shl.b32 %r3, %r1, 4; add.u32 %r4, %r4, %r3; mul.lo.u32 %r3, %r1, 0x80008; add.u32 %r5, %r3, 0x10000; "
                     "add.u32 %r6, %r3, 0x30002; add.u32 %r7, %r3, 0x50004; add.u32 %r8, %r3, 0x70006; st.shared.v4.b32 [%r4], {%r5, %r6, %r7, %r8}; bar.sync 0; ";
  auto row = [](unsigned matrix) { return [matrix](uint32_t t) { uint32_t at = (8 * matrix + t / 4) * 8 + t % 4 * 2; return at | (at + 1) << 16; }; };
  auto column = [](unsigned matrix) {
    return [matrix](uint32_t t) { uint32_t at = (8 * matrix + t % 4 * 2) * 8 + t / 4; return at | (at + 8) << 16; };
  };
  expectEach((rows + "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%r4];").c_str(), 32, row(0));
  expectEach((rows + "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r5, %r0}, [%r4];").c_str(), 32, row(1));
  expectEach((rows + "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r5, %r6, %r7, %r0}, [%r4];").c_str(), 32, row(3));
  expectEach((rows + "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r5, %r6, %r0, %r7}, [%r4];").c_str(), 32, row(2));
  expectEach((rows + "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r0}, [%r4];").c_str(), 32, column(0));
  expectEach((rows + "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r5, %r0, %r6, %r7}, [%r4];").c_str(), 32, column(1));
  // Of one matrix, the addresses of lanes from 8 on are not looked at.
  expectEach((rows + "setp.ge.u32 %p1, %r2, 8; @%p1 mov.u32 %r4, 3; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%r4];").c_str(), 32, row(0));
}

TEST(Together, Barriers) {
  // each thread reads what another warp wrote
  expectEach(".shared .align 4 .b8 s[512]; shl.b32 %r3, %r1, 2; mov.u32 %r4, s; add.u32 %r3, %r3, %r4; st.shared.u32 [%r3], %r1; bar.sync 0;"
             "xor.b32 %r5, %r1, 64; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r4; ld.shared.u32 %r0, [%r5];",
             128, [](uint32_t t) { return t ^ 64; });
  expectEach("setp.lt.u32 %p1, %r1, 10; barrier.cta.red.popc.aligned.u32 %r0, 0, %p1;", 96, [](uint32_t) { return 10; });
  expectEach("setp.lt.u32 %p1, %r1, 95; bar.red.and.pred %p2, 1, %p1; selp.u32 %r0, 1, 0, %p2;", 96, [](uint32_t) { return 0; });
  expectEach("setp.eq.u32 %p1, %r1, 95; bar.red.or.pred %p2, 1, %p1; selp.u32 %r0, 1, 0, %p2;", 96, [](uint32_t) { return 1; });
  // The first warp only arrives; the second waits for it.
  expectEach(".shared .b32 word; setp.lt.u32 %p1, %r1, 32; @%p1 bra first; bar.sync 2, 64; ld.shared.u32 %r0, [word]; bra done;"
             "first: setp.eq.u32 %p2, %r1, 0; @%p2 st.shared.u32 [word], 17; mov.u32 %r0, 1; bar.arrive 2, 64; done:",
             64, [](uint32_t t) { return t < 32 ? 1 : 17; });
  // an exchange inside of a warp
  expectEach(".shared .align 4 .b8 s[128]; shl.b32 %r3, %r1, 2; mov.u32 %r4, s; add.u32 %r3, %r3, %r4; st.shared.u32 [%r3], %r1; bar.warp.sync -1;"
             "xor.b32 %r5, %r1, 1; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r4; ld.shared.u32 %r0, [%r5]; bar.warp.sync -1; st.shared.u32 [%r5], 0;",
             32, [](uint32_t t) { return t ^ 1; });
  // threads that have left do not take part in bar.warp.sync
  expectEach(".shared .b32 word; mov.u32 %r0, %r1; setp.ge.u32 %p1, %r1, 16; @%p1 bra over; bar.warp.sync -1; add.u32 %r0, %r0, 1; over:", 32,
             [](uint32_t t) { return t < 16 ? t + 1 : t; });
}

/// A lock: one thread of the block waits for another.
TEST(Together, Locks) {
  expectEach(".shared .b32 lock; .shared .b32 sum; setp.ne.u32 %p1, %r1, 0; @%p1 bra begin; st.shared.u32 [lock], 1; st.shared.u32 [sum], 0; begin: bar.sync 0;"
             "setp.eq.u32 %p1, %r1, 63; @%p1 bra last; spin: atom.shared.cas.b32 %r3, [lock], 0, 1; setp.ne.u32 %p2, %r3, 0; @%p2 bra spin;"
             "atom.shared.add.u32 %r3, [sum], 1; atom.shared.exch.b32 %r3, [lock], 0; bra end; last: atom.shared.exch.b32 %r3, [lock], 0; end: bar.sync 0;"
             "ld.shared.u32 %r0, [sum];",
             64, [](uint32_t) { return 63; });
}

TEST(Together, AsynchronousCopies) {
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(R"(.version 8.0
.target sm_80
.address_size 64
.visible .entry kernel(.param .u64 in, .param .u64 out) {
.reg .b64 %rd<10>; .reg .b32 %r<10>; .reg .f32 %f<10>; .reg .pred %p<4>;
.shared .align 16 .b8 tile[2048];
ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; cvta.to.global.u64 %rd1, %rd1; cvta.to.global.u64 %rd2, %rd2;
mov.u32 %r1, %tid.x; mov.u32 %r2, tile; mad.lo.u32 %r3, %r1, 16, %r2; mad.wide.u32 %rd3, %r1, 16, %rd1;
cp.async.cg.shared.global [%r3], [%rd3], 16;
cp.async.commit_group;
setp.lt.u32 %p1, %r1, 8; selp.u32 %r4, 4, 0, %p1;
cp.async.ca.shared.global.L2::128B [%r3+1024], [%rd3], 4, %r4;
cp.async.commit_group;
cp.async.wait_group 1;
bar.sync 0;
xor.b32 %r5, %r1, 1; mad.lo.u32 %r5, %r5, 16, %r2; ld.shared.f32 %f1, [%r5];
cp.async.wait_all;
bar.sync 0;
ld.shared.f32 %f2, [%r5+1024]; add.f32 %f1, %f1, %f2;
mad.wide.u32 %rd4, %r1, 4, %rd2; st.global.f32 [%rd4], %f1;
ret;
})"));
  std::vector<float> values(64 * 4);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = float(i);
  uint64_t in = device.upload(values, "in"), out = device.memory.allocate(64 * 4, "out");
  device.launch("kernel", {{1}, {64}}, in, out);
  std::vector<float> found = device.download<float>(out, 64);
  for (uint32_t i = 0; i < 64; ++i)
    EXPECT_EQ(found[i], float((i ^ 1) * 4 * ((i ^ 1) < 8 ? 2 : 1)));
  ASSERT_EQ(device.counters.allocations.size(), 2u);
  EXPECT_EQ(device.counters.allocations[0].bytesRead, 64u * 16 + 8 * 4);
  EXPECT_EQ(device.counters.allocations[1].bytesWritten, 64u * 4);
}

/// Indices of threads and blocks along all axes, and the order of blocks.
TEST(Together, Grids) {
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(R"(.version 8.0
.target sm_80
.address_size 64
.visible .entry kernel(.param .u64 .ptr .global .align 4 out) .maxntid 24, 1, 1 {
.reg .b64 %rd<10>; .reg .b32 %r<20>;
ld.param.u64 %rd1, [out];
mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mov.u32 %r4, %ntid.x; mov.u32 %r5, %ntid.y; mov.u32 %r6, %ntid.z;
mad.lo.u32 %r7, %r3, %r5, %r2; mad.lo.u32 %r7, %r7, %r4, %r1;
mov.u32 %r8, %ctaid.x; mov.u32 %r9, %ctaid.y; mov.u32 %r10, %ctaid.z; mov.u32 %r11, %nctaid.x; mov.u32 %r12, %nctaid.y;
mad.lo.u32 %r13, %r10, %r12, %r9; mad.lo.u32 %r13, %r13, %r11, %r8;
mul.lo.u32 %r14, %r4, %r5; mul.lo.u32 %r14, %r14, %r6; mad.lo.u32 %r15, %r13, %r14, %r7;
mad.wide.u32 %rd2, %r15, 4, %rd1; st.global.u32 [%rd2], %r15;
ret;
})"));
  const Kernel *kernel = device.module->kernel("kernel");
  ASSERT_TRUE(kernel && kernel->maxThreads);
  EXPECT_EQ(kernel->maxThreads->x, 24u);
  EXPECT_FALSE(kernel->usesRendezvous);
  uint64_t out = device.memory.allocate(24 * 30 * 4, "out");
  device.launch("kernel", {{5, 2, 3}, {4, 3, 2}}, out);
  std::vector<uint32_t> found = device.download<uint32_t>(out, 24 * 30);
  for (uint32_t i = 0; i < found.size(); ++i)
    EXPECT_EQ(found[i], i);
  EXPECT_EQ(device.counters.threads, 24u * 30);
  EXPECT_EQ(device.counters.blocks, 30u);
  EXPECT_EQ(device.counters.bytesWritten, 24u * 30 * 4);
  EXPECT_EQ(device.counters.bytesRead, 0u);
}

TEST(Module, DescribesKernels) {
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(R"(.version 8.3
.target sm_90
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.visible .entry kernel(.param .u32 a, .param .u64 b, .param .align 8 .b8 c[12], .param .u8 d) .reqntid 32, 2, 1 .minnctapersm 3 {
.reg .b32 %r<4>;
.shared .align 4 .b8 first[100]; .shared .align 16 .b8 second[64];
.local .align 8 .b8 depot[40];
mov.u32 %r1, first; mov.u32 %r2, second; mov.u32 %r3, dynamic;
bar.sync 0;
ret;
})"));
  EXPECT_EQ(device.module->target(), 90u);
  EXPECT_EQ(device.module->version(), 83u);
  const Kernel *kernel = device.module->kernel("kernel");
  ASSERT_TRUE(kernel);
  EXPECT_EQ(device.module->kernel("other"), nullptr);
  EXPECT_EQ(device.module->kernels().size(), 1u);
  ASSERT_EQ(kernel->parameters.size(), 4u);
  EXPECT_EQ(kernel->parameters[1].offset, 8u);
  EXPECT_EQ(kernel->parameters[2].offset, 16u);
  EXPECT_EQ(kernel->parameters[2].bytes, 12u);
  EXPECT_EQ(kernel->parameters[3].offset, 28u);
  EXPECT_EQ(kernel->parameterBytes, 29u);
  EXPECT_EQ(kernel->staticSharedBytes, 112u + 64);
  EXPECT_TRUE(kernel->usesDynamicShared);
  EXPECT_TRUE(kernel->usesRendezvous);
  EXPECT_EQ(kernel->localBytes, 48u);
  ASSERT_TRUE(kernel->reqThreads);
  EXPECT_EQ(*kernel->reqThreads, (Dim3{32, 2, 1}));
  EXPECT_EQ(kernel->minBlocksPerSm, 3u);
}

} // namespace
