//===- FaultsTest.cpp - broken kernels, each with its diagnosis -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Common.h"
#include "ptx/Execution.h"
#include <regex>

using namespace standin;

namespace {

/// The kernel `k` of the module `broken`, with a buffer `data` of 64 floats that are written, and
/// `fresh`, of 64 that are not. Line 8 is the body's first.
std::string kernel(const std::string &body, const std::string &globals = "") {
  return ".version 8.0\n.target sm_90\n.address_size 64\n.file 1 \"mlp.dl\"\n" + globals + "\n.visible .entry k(.param .u64 data, .param .u64 fresh, .param .u32 n) {\n" +
         ".reg .b64 %rd<10>; .reg .b32 %r<10>; .reg .f32 %f<10>; .reg .pred %p<4>; ld.param.u64 %rd1, [data]; ld.param.u64 %rd2, [fresh]; "
         "ld.param.u32 %r9, [n]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mul.wide.u32 %rd3, %r1, 4; add.s64 %rd4, %rd1, %rd3; add.s64 %rd5, %rd2, %rd3;\n" +
         body + "\nret;\n}\n";
}

/// Addresses vary; nothing else does.
std::string masked(const std::string &text) { return std::regex_replace(text, std::regex("0x[0-9a-f]{9,}"), "ADDRESS"); }

class Faults : public ::testing::Test {
protected:
  void SetUp() override {
    data = device.upload(std::vector<float>(64, 1.0f), "data");
    fresh = device.memory.allocate(256, "fresh");
  }
  std::string run(const std::string &ptx, const LaunchConfig &config = {{1}, {32}}, uint32_t n = 0) {
    device.module.reset();
    device.load(ptx, "broken");
    if (!device.module)
      return "refused";
    std::optional<Report> report = device.tryLaunch("k", config, data, fresh, n);
    return report ? masked(report->str()) : "";
  }

  Device device;
  uint64_t data = 0, fresh = 0;
};

TEST_F(Faults, WriteBehindTheEnd) {
  EXPECT_EQ(run(kernel("mul.wide.u32 %rd6, %r2, 128;\nadd.s64 %rd4, %rd4, %rd6;\n.loc 1 12 3\nst.global.f32 [%rd4], 0f00000000;"), {{4}, {32}}),
            "out-of-bounds: write of 4 bytes at ADDRESS is 0 bytes past the end of 'data' (256 bytes); kernel 'k' of 'broken', block (2,0,0), thread "
            "(0,0,0), line 11 of the PTX, mlp.dl:12");
}
TEST_F(Faults, ReadBeforeTheBeginning) {
  EXPECT_EQ(run(kernel("ld.global.f32 %f1, [%rd4+-8];")),
            "out-of-bounds: read of 4 bytes at ADDRESS is 8 bytes before 'data' (256 bytes); kernel 'k' of 'broken', block (0,0,0), thread (0,0,0), line 8 "
            "of the PTX");
}
TEST_F(Faults, VectorAcrossTheEnd) {
  device.memory.free(data);
  data = device.upload(std::vector<float>(62, 1.0f), "data");
  EXPECT_EQ(run(kernel("mad.wide.u32 %rd6, %r1, 16, %rd1;\nld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd6];")),
            "out-of-bounds: read of 16 bytes at ADDRESS ends 8 bytes past the end of 'data' (248 bytes); kernel 'k' of 'broken', block (0,0,0), thread "
            "(15,0,0), line 9 of the PTX");
}
TEST_F(Faults, Misaligned) {
  EXPECT_EQ(run(kernel("ld.global.v2.f32 {%f1, %f2}, [%rd4];")),
            "misaligned: read of 8 bytes at ADDRESS is not aligned to 8: byte 4 of 'data' (256 bytes); kernel 'k' of 'broken', block (0,0,0), thread "
            "(1,0,0), line 8 of the PTX");
}
TEST_F(Faults, UseAfterFree) {
  device.memory.free(data);
  EXPECT_EQ(run(kernel("ld.global.f32 %f1, [%rd4];")),
            "use-after-free: read of 4 bytes at ADDRESS: byte 0 of 'data' (256 bytes) was freed; kernel 'k' of 'broken', block (0,0,0), thread (0,0,0), line "
            "8 of the PTX");
}
TEST_F(Faults, HostPointer) {
  float here[64] = {};
  device.memory.free(data);
  data = reinterpret_cast<uint64_t>(here);
  EXPECT_EQ(run(kernel("ld.global.f32 %f1, [%rd4];")),
            "host-pointer: read of 4 bytes at ADDRESS, which is no device memory: a pointer of the host; kernel 'k' of 'broken', block (0,0,0), thread "
            "(0,0,0), line 8 of the PTX");
}
TEST_F(Faults, NullPointer) {
  device.memory.free(data);
  data = 0;
  EXPECT_EQ(run(kernel("st.f32 [%rd4], 0f00000000;")),
            "host-pointer: write of 4 bytes at 0x0: a null pointer; kernel 'k' of 'broken', block (0,0,0), thread (0,0,0), line 8 of the PTX");
}
TEST_F(Faults, ReadOfUnwrittenMemory) {
  EXPECT_EQ(run(kernel("setp.lt.u32 %p1, %r1, 7;\n@%p1 st.global.f32 [%rd5], 0f00000000;\nld.global.f32 %f1, [%rd5];")),
            "unwritten-global: read of 4 bytes at ADDRESS: byte 28 of 'fresh' (256 bytes) has never been written; kernel 'k' of 'broken', block (0,0,0), "
            "thread (7,0,0), line 10 of the PTX");
}
TEST_F(Faults, AtomicOnUnwrittenMemory) {
  EXPECT_EQ(run(kernel("red.global.add.f32 [%rd5], 0f3F800000;")),
            "unwritten-global: atomic access of 4 bytes at ADDRESS: byte 0 of 'fresh' (256 bytes) has never been written; kernel 'k' of 'broken', block "
            "(0,0,0), thread (0,0,0), line 8 of the PTX");
}
TEST_F(Faults, ReadOfUnwrittenShared) {
  EXPECT_EQ(run(kernel(".shared .align 4 .b8 tile[128]; mov.u32 %r3, tile; mad.lo.u32 %r3, %r1, 4, %r3;\nsetp.ne.u32 %p1, %r1, 5; @%p1 st.shared.u32 [%r3], 0; "
                       "bar.sync 0;\nld.shared.u32 %r4, [%r3];")),
            "unwritten-shared: read of 4 bytes at byte 20 of shared 'tile', which no thread of the block has written; kernel 'k' of 'broken', block (0,0,0), "
            "thread (5,0,0), line 10 of the PTX");
}
/// What a block has left in shared memory is not there for the next.
TEST_F(Faults, SharedOfAnotherBlock) {
  EXPECT_EQ(run(kernel(".shared .b32 word;\nsetp.eq.u32 %p1, %r2, 0; @%p1 st.shared.u32 [word], 0;\nld.shared.u32 %r4, [word];"), {{2}, {1}}),
            "unwritten-shared: read of 4 bytes at byte 0 of shared 'word', which no thread of the block has written; kernel 'k' of 'broken', block (1,0,0), "
            "thread (0,0,0), line 10 of the PTX");
}
TEST_F(Faults, SharedOutOfBounds) {
  EXPECT_EQ(run(kernel(".shared .align 4 .b8 tile[64]; .shared .align 4 .b8 next[64]; mov.u32 %r5, next; mov.u32 %r3, tile; mad.lo.u32 %r3, %r1, 4, %r3;\nst.shared.u32 "
                       "[%r3], 0;")),
            "out-of-bounds: write of 4 bytes at shared address 0xc0 is 0 bytes past the end of 'tile' (64 bytes); kernel 'k' of 'broken', block (0,0,0), "
            "thread (16,0,0), line 9 of the PTX");
}
TEST_F(Faults, DynamicSharedOutOfBounds) {
  EXPECT_EQ(run(kernel("mov.u32 %r3, tile; mad.lo.u32 %r3, %r1, 4, %r3;\nst.shared.u32 [%r3], 0;", ".extern .shared .align 16 .b8 tile[];"), {{1}, {32}, 100}),
            "out-of-bounds: write of 4 bytes at shared address 0x64 is 0 bytes past the end of 'dynamic shared memory' (100 bytes); kernel 'k' of 'broken', "
            "block (0,0,0), thread (25,0,0), line 9 of the PTX");
}
TEST_F(Faults, SharedRaceBetweenWarps) {
  EXPECT_EQ(run(kernel(".shared .align 4 .b8 tile[256]; mov.u32 %r3, tile; mad.lo.u32 %r4, %r1, 4, %r3; xor.b32 %r5, %r1, 32; mad.lo.u32 %r5, %r5, 4, %r3;\n"
                       "st.shared.u32 [%r4], 0; bar.sync 0;\nld.shared.u32 %r6, [%r5];\nst.shared.u32 [%r4], 1;"),
                {{1}, {64}}),
            "shared-race: read of 4 bytes at byte 0 of shared 'tile', which thread (0,0,0) has written since the last barrier; kernel 'k' of 'broken', block "
            "(0,0,0), thread (32,0,0), line 10 of the PTX");
}
TEST_F(Faults, SharedRaceInsideOfAWarp) {
  EXPECT_EQ(run(kernel(".shared .align 4 .b8 tile[128]; mov.u32 %r3, tile; mad.lo.u32 %r4, %r1, 4, %r3; xor.b32 %r5, %r1, 1; mad.lo.u32 %r5, %r5, 4, %r3;\n"
                       "st.shared.u32 [%r4], 0; shfl.sync.bfly.b32 %r6, %r6, 1, 31, -1;\nld.shared.u32 %r6, [%r5];")),
            "shared-race: read of 4 bytes at byte 4 of shared 'tile', which thread (1,0,0) has written since the last barrier; kernel 'k' of 'broken', block "
            "(0,0,0), thread (0,0,0), line 10 of the PTX");
}
TEST_F(Faults, SharedRaceAfterReads) {
  EXPECT_EQ(run(kernel(".shared .b32 word; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [word], 0; bar.sync 0;\nld.shared.u32 %r6, [word];\nsetp.eq.u32 %p1, %r1, 63; @%p1 "
                       "st.shared.u32 [word], 1;"),
                {{1}, {64}}),
            "shared-race: write of 4 bytes at byte 0 of shared 'word', which thread (32,0,0) has read since the last barrier; kernel 'k' of 'broken', block "
            "(0,0,0), thread (63,0,0), line 10 of the PTX");
}
TEST_F(Faults, SharedRaceWithAtomic) {
  EXPECT_EQ(run(kernel(".shared .b32 word; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [word], 0; bar.sync 0;\nred.shared.add.u32 [word], 1;\nsetp.eq.u32 %p1, %r1, 63; "
                       "@%p1 ld.shared.u32 %r5, [word];"),
                {{1}, {64}}),
            "shared-race: read of 4 bytes at byte 0 of shared 'word', which another thread has written since the last barrier; kernel 'k' of 'broken', block "
            "(0,0,0), thread (63,0,0), line 10 of the PTX");
}
TEST_F(Faults, SharedRaceOfBytes) {
  EXPECT_EQ(run(kernel(".shared .align 4 .b8 tile[64]; mov.u32 %r3, tile; add.u32 %r3, %r3, %r1;\nst.shared.u8 [%r3], 1;")), "");
  EXPECT_EQ(run(kernel(".shared .align 4 .b8 tile[64]; mov.u32 %r3, tile; shr.u32 %r4, %r1, 1; add.u32 %r3, %r3, %r4;\nst.shared.u8 [%r3], 1;")),
            "shared-race: write of 1 bytes at byte 0 of shared 'tile', which thread (0,0,0) has written since the last barrier; kernel 'k' of 'broken', "
            "block (0,0,0), thread (1,0,0), line 9 of the PTX");
}
TEST_F(Faults, SharedRaceThroughGenericAddress) {
  EXPECT_EQ(run(kernel(".shared .b32 word; mov.u64 %rd6, word; cvta.shared.u64 %rd6, %rd6;\nst.u32 [%rd6], %r1;")),
            "shared-race: write of 4 bytes at byte 0 of shared 'word', which thread (0,0,0) has written since the last barrier; kernel 'k' of 'broken', "
            "block (0,0,0), thread (1,0,0), line 9 of the PTX");
}
/// A reduction inside of a warp that is right, and one where bar.warp.sync leaves out a lane.
TEST_F(Faults, PartialWarpBarrier) {
  std::string exchange = "st.shared.u32 [%r4], 0;\n@%p1 bar.warp.sync MASK;\n@!%p1 bar.warp.sync 0x80000000;\nld.shared.u32 %r6, [%r5];";
  std::string begin = ".shared .align 4 .b8 tile[128]; mov.u32 %r3, tile; mad.lo.u32 %r4, %r1, 4, %r3; st.shared.u32 [%r4], 9; bar.sync 0; add.u32 %r5, %r1, 1; and.b32 %r5, %r5, 31; mad.lo.u32 %r5, %r5, 4, "
                      "%r3; setp.ne.u32 %p1, %r1, 31;\n";
  EXPECT_EQ(run(kernel(begin + std::regex_replace(exchange, std::regex("MASK"), "0x7fffffff"))),
            "shared-race: read of 4 bytes at byte 124 of shared 'tile', which thread (31,0,0) has written since the last barrier; kernel 'k' of 'broken', "
            "block (0,0,0), thread (30,0,0), line 12 of the PTX");
  EXPECT_EQ(run(kernel(begin + "st.shared.u32 [%r4], 0;\nbar.warp.sync -1;\nld.shared.u32 %r6, [%r5];")), "");
}
TEST_F(Faults, RaceBetweenBlocks) {
  EXPECT_EQ(run(kernel("st.global.u32 [%rd4], %r1;"), {{2}, {32}}),
            "global-race: write of 4 bytes at byte 0 of 'data', which block (0,0,0) has written; kernel 'k' of 'broken', block (1,0,0), thread (0,0,0), line "
            "8 of the PTX");
  // what a block reads another may not write
  EXPECT_EQ(run(kernel("mad.wide.u32 %rd6, %r2, 4, %rd1;\nld.global.u32 %r3, [%rd1+4];\nst.global.u32 [%rd6], 1;"), {{2}, {1}}),
            "global-race: write of 4 bytes at byte 4 of 'data', which block (0,0,0) has read; kernel 'k' of 'broken', block (1,0,0), thread (0,0,0), line 10 "
            "of the PTX");
  // with a fence and an atomic it is a way to pass a result on
  EXPECT_EQ(run(kernel("mad.wide.u32 %rd6, %r2, 4, %rd1;\nst.global.u32 [%rd6], 1; membar.gl; atom.global.add.u32 %r3, [%rd1+128], 1; membar.gl; ld.global.u32 %r4, [%rd1];"),
                {{2}, {1}}),
            "");
}
TEST_F(Faults, NonCoherentRead) {
  EXPECT_EQ(run(kernel("st.global.u32 [%rd4], %r1;\nld.global.nc.u32 %r3, [%rd4];")),
            "global-race: read of 4 bytes at byte 0 of 'data' with .nc, which this launch has written (block (0,0,0)); kernel 'k' of 'broken', block (0,0,0), "
            "thread (0,0,0), line 9 of the PTX");
}
TEST_F(Faults, BarrierThatNotAllReach) {
  EXPECT_EQ(run(kernel("setp.lt.u32 %p1, %r1, 3;\n@%p1 ret;\nbar.sync 0;")),
            "barrier-divergence: barrier 0 is not reached by all threads: thread (0,0,0) has ended; kernel 'k' of 'broken', block (0,0,0), thread (3,0,0), "
            "line 10 of the PTX");
}
TEST_F(Faults, BarrierOfOneWarp) {
  EXPECT_EQ(run(kernel("setp.lt.u32 %p1, %r1, 32;\n@%p1 bar.sync 0;\n@!%p1 bar.sync 1;"), {{1}, {64}}),
            "barrier-divergence: barrier 0 is not reached by all threads: thread (32,0,0) waits at a barrier in line 10; kernel 'k' of 'broken', block "
            "(0,0,0), thread (0,0,0), line 9 of the PTX");
}
TEST_F(Faults, AlignedBarrierInABranch) {
  EXPECT_EQ(run(kernel("setp.lt.u32 %p1, %r1, 16;\n@%p1 bra low;\nbar.sync 0;\nbra.uni over;\nlow: bar.sync 0;\nover:")),
            "barrier-divergence: barrier 0: other threads of the warp wait at another instruction, in line 12; kernel 'k' of 'broken', block (0,0,0), thread "
            "(16,0,0), line 10 of the PTX");
}
TEST_F(Faults, ShuffleWithoutAllLanes) {
  EXPECT_EQ(run(kernel("setp.eq.u32 %p1, %r1, 9;\n@%p1 ret;\nshfl.sync.down.b32 %r3, %r1, 1, 31, -1;")),
            "warp-divergence: shfl.sync with mask 0xffffffff names lane 9, which has ended; kernel 'k' of 'broken', block (0,0,0), thread (10,0,0), line 10 "
            "of the PTX");
  EXPECT_EQ(run(kernel("setp.lt.u32 %p1, %r1, 16;\n@%p1 shfl.sync.down.b32 %r3, %r1, 1, 31, -1;\nbar.sync 0;")),
            "barrier-divergence: barrier 0 is not reached by all threads: thread (0,0,0) waits at shfl.sync in line 9; kernel 'k' of 'broken', block (0,0,0), "
            "thread (16,0,0), line 10 of the PTX");
}
TEST_F(Faults, ShuffleOfOthersMasks) {
  EXPECT_EQ(run(kernel("setp.lt.u32 %p1, %r1, 16;\n@%p1 shfl.sync.bfly.b32 %r3, %r1, 1, 31, -1;\n@!%p1 vote.sync.all.pred %p2, %p1, -1;")),
            "warp-divergence: shfl.sync with mask 0xffffffff names lane 16, which waits at vote.sync with mask 0xffffffff in line 10; kernel 'k' of 'broken', "
            "block (0,0,0), thread (0,0,0), line 9 of the PTX");
  EXPECT_EQ(run(kernel("shfl.sync.bfly.b32 %r3, %r1, 1, 31, 0xffff;")),
            "warp-divergence: shfl.sync with mask 0xffff does not name the thread's own lane 16; kernel 'k' of 'broken', block (0,0,0), thread (16,0,0), "
            "line 8 of the PTX");
  EXPECT_EQ(run(kernel("setp.lt.u32 %p1, %r1, 16;\n@%p1 shfl.sync.down.b32 %r3, %r1, 4, 31, 0xffff;")),
            "warp-divergence: shfl.sync with mask 0xffff reads from lane 16, which the mask does not name; kernel 'k' of 'broken', block (0,0,0), thread "
            "(12,0,0), line 9 of the PTX");
}
TEST_F(Faults, MatricesWithoutAllLanes) {
  std::string mma = "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4}, {%r3, %r4}, {%r5}, {%f5, %f6, %f7, %f8};";
  EXPECT_EQ(run(kernel(mma), {{1}, {56}}),
            "warp-divergence: mma.sync in a warp of 24 threads, of which it takes 32; kernel 'k' of 'broken', block (0,0,0), thread (32,0,0), line 8 of the PTX");
  EXPECT_EQ(run(kernel("setp.eq.u32 %p1, %r1, 9;\n@%p1 ret;\n" + mma)),
            "warp-divergence: mma.sync with mask 0xffffffff names lane 9, which has ended; kernel 'k' of 'broken', block (0,0,0), thread (10,0,0), line 10 of "
            "the PTX");
  EXPECT_EQ(run(kernel("setp.lt.u32 %p1, %r1, 16;\n@%p1 bra low;\n" + mma + "\nbra.uni over;\nlow: " + mma + "\nover:")),
            "warp-divergence: mma.sync: other threads of the warp wait at another instruction, in line 12; kernel 'k' of 'broken', block (0,0,0), thread "
            "(31,0,0), line 10 of the PTX");
}
TEST_F(Faults, RowsOfMatrices) {
  std::string rows = "mov.u32 %r4, s; shl.b32 %r3, %r1, 4; add.u32 %r4, %r4, %r3; st.shared.v4.b32 [%r4], {%r1, %r1, %r1, %r1}; bar.sync 0;\n";
  std::string memory = ".shared .align 16 .b8 s[1024];";
  EXPECT_EQ(run(kernel(rows + "add.u32 %r4, %r4, 8;\nldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r5, %r6}, [%r4];", memory)),
            "misaligned: read of 16 bytes at byte 8 of shared 's' is not aligned to 16; kernel 'k' of 'broken', block (0,0,0), thread (0,0,0), line 10 of the PTX");
  EXPECT_EQ(run(kernel(rows + "add.u32 %r4, %r4, 16;\nldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r5, %r6, %r7, %r8}, [%r4];", memory)),
            "unwritten-shared: read of 16 bytes at byte 512 of shared 's', which no thread of the block has written; kernel 'k' of 'broken', block (0,0,0), "
            "thread (31,0,0), line 10 of the PTX");
  EXPECT_EQ(run(kernel("mov.u32 %r4, s; shl.b32 %r3, %r1, 4; add.u32 %r4, %r4, %r3;\nst.shared.v4.b32 [%r4], {%r1, %r1, %r1, %r1};\nxor.b32 %r4, %r4, 16;\n"
                       "bar.warp.sync -1;\nldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r5, %r6, %r7, %r8}, [%r4];\nst.shared.b32 [%r4], 0;",
                       memory)),
            "");
}
TEST_F(Faults, LaneThatDoesNotExist) {
  EXPECT_EQ(run(kernel("shfl.sync.bfly.b32 %r3, %r1, 16, 31, -1;"), {{1}, {24}}),
            "warp-divergence: shfl.sync with mask 0xffffffff reads from lane 24, which the block does not have; kernel 'k' of 'broken', block (0,0,0), thread "
            "(8,0,0), line 8 of the PTX");
}
TEST_F(Faults, WriteToConstants) {
  EXPECT_EQ(run(kernel("cvta.const.u64 %rd6, table;\nst.u32 [%rd6+4], %r1;", ".const .u32 table[2] = {1, 2};")),
            "read-only: write of 4 bytes at ADDRESS: byte 4 of 'table' (8 bytes) is read-only; kernel 'k' of 'broken', block (0,0,0), thread (0,0,0), line 9 "
            "of the PTX");
}
TEST_F(Faults, WriteToParameters) {
  EXPECT_EQ(run(kernel("mov.u64 %rd6, n; cvta.param.u64 %rd6, %rd6; ld.u32 %r3, [%rd6];\nst.u32 [%rd6], %r1;")),
            "read-only: write of 4 bytes at byte 16 of the parameters, which are read-only; kernel 'k' of 'broken', block (0,0,0), thread (0,0,0), line 9 of "
            "the PTX");
}
TEST_F(Faults, ReadBehindParameters) {
  EXPECT_EQ(run(kernel("mov.u64 %rd6, n; add.s64 %rd6, %rd6, 8;\nld.param.u32 %r3, [%rd6];")),
            "out-of-bounds: read of 4 bytes at byte 24 of the parameters (20 bytes); kernel 'k' of 'broken', block (0,0,0), thread (0,0,0), line 9 of the "
            "PTX");
}
TEST_F(Faults, LocalOutOfBounds) {
  EXPECT_EQ(run(kernel(".local .align 4 .b8 depot[32]; mov.u64 %rd6, depot; add.s64 %rd6, %rd6, %rd3;\nst.local.u32 [%rd6], %r1;")),
            "out-of-bounds: write of 4 bytes at byte 32 of the thread's local memory (32 bytes); kernel 'k' of 'broken', block (0,0,0), thread (8,0,0), line 9 "
            "of the PTX");
  // another thread's, through a generic address
  EXPECT_EQ(run(kernel(".local .align 4 .b8 depot[32]; cvta.local.u64 %rd6, depot; mul.wide.u32 %rd7, %r1, 128; sub.s64 %rd6, %rd6, %rd7;\nst.u32 [%rd6], %r1;")),
            "out-of-bounds: write of 4 bytes at byte -128 of the thread's local memory (32 bytes); kernel 'k' of 'broken', block (0,0,0), thread (1,0,0), line "
            "9 of the PTX");
}
TEST_F(Faults, AsynchronousCopyNotWaitedFor) {
  std::string copy = ".shared .align 16 .b8 tile[512]; mov.u32 %r3, tile; mad.lo.u32 %r3, %r1, 16, %r3; and.b32 %r4, %r1, 3; mad.wide.u32 %rd6, %r4, 16, %rd1;\n"
                     "cp.async.cg.shared.global [%r3], [%rd6], 16;\ncp.async.commit_group;\n";
  EXPECT_EQ(run(kernel(copy + "cp.async.wait_group 1;\nld.shared.u32 %r5, [%r3];")),
            "async-pending: read of 4 bytes at byte 0 of shared 'tile', whose cp.async has not been waited for; kernel 'k' of 'broken', block (0,0,0), thread "
            "(0,0,0), line 12 of the PTX");
  EXPECT_EQ(run(kernel(copy + "cp.async.wait_group 0;\nld.shared.u32 %r5, [%r3];")), "");
  // each thread waits for its own copies: the others' need a barrier besides
  EXPECT_EQ(run(kernel(copy + "cp.async.wait_group 0;\nxor.b32 %r6, %r3, 16;\nld.shared.u32 %r5, [%r6];")).substr(0, 16), "unwritten-shared");
}
TEST_F(Faults, AsynchronousCopyOfUnwritten) {
  EXPECT_EQ(run(kernel(".shared .align 16 .b8 tile[512]; mov.u32 %r3, tile; mad.lo.u32 %r3, %r1, 4, %r3;\ncp.async.ca.shared.global [%r3], [%rd5], 4;")),
            "unwritten-global: read of 4 bytes at ADDRESS: byte 0 of 'fresh' (256 bytes) has never been written; kernel 'k' of 'broken', block (0,0,0), thread "
            "(0,0,0), line 9 of the PTX");
}
TEST_F(Faults, Trap) {
  EXPECT_EQ(run(kernel("setp.eq.u32 %p1, %r1, 4;\n@%p1 trap;")),
            "trap: the thread has met a trap; kernel 'k' of 'broken', block (0,0,0), thread (4,0,0), line 9 of the PTX");
}
TEST_F(Faults, Assert) {
  const char *globals = R"(.global .align 1 .b8 text[6] = {105, 60, 49, 48, 48}; .global .align 1 .b8 file[5] = {97, 46, 99, 117}; .extern .func __assertfail (.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);)";
  EXPECT_EQ(run(kernel("{ .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;\ncvta.global.u64 %rd6, text; st.param.b64 [a], %rd6; cvta.global.u64 "
                       "%rd6, file; st.param.b64 [b], %rd6; st.param.b32 [c], 12; st.param.b64 [d], 0; st.param.b64 [e], 1;\ncall.uni __assertfail, (a, b, c, d, e); }",
                       globals)),
            "assert: assertion 'i<100' failed at a.cu:12; kernel 'k' of 'broken', block (0,0,0), thread (0,0,0), line 10 of the PTX");
}
TEST_F(Faults, Endless) {
  setEndlessLimit(1 << 20);
  // a block waits for one that comes later
  EXPECT_EQ(run(kernel("setp.ne.u32 %p1, %r2, 0; @%p1 bra give;\nwait: ld.volatile.global.u32 %r3, [%rd1]; setp.ne.u32 %p1, %r3, 77;\n@%p1 bra wait;\nret;\ngive: "
                       "st.volatile.global.u32 [%rd1], 77;"),
                {{2}, {1}}),
            "endless: the launch has jumped backwards 1114112 times and has not ended; kernel 'k' of 'broken', block (0,0,0), thread (0,0,0), line 10 of the "
            "PTX");
  setEndlessLimit(uint64_t(1) << 33);
}
TEST_F(Faults, BranchTable) {
  EXPECT_EQ(run(kernel("table: .branchtargets a, b;\nbrx.idx %r1, table;\na:\nb:")),
            "out-of-bounds: brx.idx with index 2 of 2 targets; kernel 'k' of 'broken', block (0,0,0), thread (2,0,0), line 9 of the PTX");
}
TEST_F(Faults, Configurations) {
  std::string fine = kernel("mov.u32 %r3, tile;", ".extern .shared .align 16 .b8 tile[];");
  EXPECT_EQ(run(fine, {{1}, {32}}), "");
  EXPECT_EQ(run(fine, {{1}, {1025}}),
            "bad-launch: a block of (1025,1,1) has more threads than the 1024 (64 along z) that there may be; kernel 'k' of 'broken'");
  EXPECT_EQ(run(fine, {{0}, {32}}), "bad-launch: a grid (0,1,1) of blocks (32,1,1) has no threads; kernel 'k' of 'broken'");
  EXPECT_EQ(run(fine, {{1, 70000}, {32}}), "bad-launch: a grid of (1,70000,1) blocks is too large; kernel 'k' of 'broken'");
  EXPECT_EQ(run(fine, {{1}, {32}, 300000}), "bad-launch: 300000 bytes of shared memory, of which there are 232448; kernel 'k' of 'broken'");
  std::string fixed = fine;
  fixed.replace(fixed.find(") {\n"), 2, ") .reqntid 64 ");
  EXPECT_EQ(run(fixed, {{1}, {32}}), "bad-launch: a block of (32,1,1), but .reqntid says (64,1,1); kernel 'k' of 'broken'");
  std::string few = fine;
  few.replace(few.find(") {\n"), 2, ") .maxntid 16, 1, 1 ");
  EXPECT_EQ(run(few, {{1}, {32}}), "bad-launch: a block of 32 threads, but .maxntid says 16; kernel 'k' of 'broken'");
  LaunchCounters counters;
  std::optional<Report> report = launch(*device.module->kernel("k"), {{1}, {16}}, {}, counters);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->str(), "bad-launch: 0 bytes of parameters, the kernel takes 20; kernel 'k' of 'broken'");
}

/// After a fault all goes on: the same module, the same memory.
TEST_F(Faults, TheNextLaunchRuns) {
  std::string ptx = kernel(".shared .b32 word; setp.eq.u32 %p1, %r1, %r9; @%p1 trap; bar.sync 0; st.global.u32 [%rd5], 5;");
  EXPECT_EQ(run(ptx, {{1}, {32}}, 3).substr(0, 4), "trap");
  std::optional<Report> report = device.tryLaunch("k", {{1}, {32}}, data, fresh, 100u);
  EXPECT_FALSE(report) << report->str();
  EXPECT_EQ(device.download<uint32_t>(fresh, 32), std::vector<uint32_t>(32, 5));
}

//===----------------------------------------------------------------------===//
// Memory, as the host sees it
//===----------------------------------------------------------------------===//

TEST(DeviceMemory, Allocations) {
  Memory memory;
  EXPECT_EQ(memory.allocate(0, "nothing"), 0u);
  uint64_t a = memory.allocate(1000, "a"), b = memory.allocate(1 << 20, "b");
  EXPECT_EQ(a % 256, 0u);
  EXPECT_NE(a % 512, 0u) << "nothing should be aligned by chance";
  EXPECT_EQ(memory.bytesInUse(), 1000u + (1 << 20));
  ASSERT_TRUE(memory.find(a + 999));
  EXPECT_EQ(memory.find(a + 999)->what, "a");
  EXPECT_EQ(memory.find(a + 1000), nullptr);
  EXPECT_TRUE(memory.isDeviceAddress(a));
  int local;
  EXPECT_FALSE(memory.isDeviceAddress(reinterpret_cast<uint64_t>(&local)));
  EXPECT_EQ(memory.live().size(), 2u);
  EXPECT_FALSE(memory.free(a));
  ASSERT_EQ(memory.live().size(), 1u);
  EXPECT_EQ(memory.live()[0]->what, "b");
  EXPECT_EQ(memory.bytesInUse(), 1u << 20);
  EXPECT_EQ(memory.peakBytes(), 1000u + (1 << 20));
  std::optional<Report> again = memory.free(a);
  ASSERT_TRUE(again);
  EXPECT_EQ(masked(again->str()), "double-free: free of ADDRESS, which is freed already: 'a' (1000 bytes)");
  std::optional<Report> inside = memory.free(b + 16);
  ASSERT_TRUE(inside);
  EXPECT_EQ(masked(inside->str()), "bad-free: free of ADDRESS, which no allocation returned: it lies in 'b' (1048576 bytes)");
  // Addresses do not come again.
  uint64_t c = memory.allocate(1000, "c");
  EXPECT_NE(c, a);
}

TEST(DeviceMemory, ChecksOfCopies) {
  Memory memory;
  uint64_t a = memory.allocate(100, "a");
  EXPECT_FALSE(memory.checkWrite(a, 100, "cuMemcpyHtoD"));
  std::optional<Report> report = memory.checkWrite(a + 50, 51, "cuMemcpyHtoD");
  ASSERT_TRUE(report);
  EXPECT_EQ(masked(report->str()), "out-of-bounds: cuMemcpyHtoD: write of 51 bytes at ADDRESS ends 1 bytes past the end of 'a' (100 bytes)");
  report = memory.checkRead(a, 100, "cuMemcpyDtoH");
  ASSERT_TRUE(report);
  EXPECT_EQ(masked(report->str()), "unwritten-global: cuMemcpyDtoH: read of 100 bytes at ADDRESS: byte 0 of 'a' (100 bytes) has never been written");
  memory.markWritten(a, 40);
  EXPECT_FALSE(memory.checkRead(a, 40, "cuMemcpyDtoH"));
  EXPECT_EQ(memory.firstUnwritten(a, 100), a + 40);
  memory.markUnwritten(a, 8);
  EXPECT_EQ(memory.firstUnwritten(a, 100), a);
  EXPECT_FALSE(memory.firstUnwritten(a + 8, 32));
  memory.free(a);
  report = memory.checkRead(a, 4, "cuMemcpyDtoH");
  ASSERT_TRUE(report);
  EXPECT_EQ(masked(report->str()), "use-after-free: cuMemcpyDtoH: read of 4 bytes at ADDRESS, in memory that was freed: 'a' (100 bytes)");
  int local = 0;
  report = memory.checkRead(reinterpret_cast<uint64_t>(&local), 4, "cuMemcpyDtoH");
  ASSERT_TRUE(report);
  EXPECT_EQ(report->fault, Fault::HostPointer);
  EXPECT_FALSE(memory.checkRead(a, 0, "cuMemcpyDtoH"));
}

} // namespace
