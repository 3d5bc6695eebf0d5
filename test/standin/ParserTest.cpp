//===- ParserTest.cpp - what is refused, and that nothing crashes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Common.h"
#include "ptx/Lexer.h"
#include "ptx/Parser.h"
#include <random>

using namespace standin;
using namespace llvm;

namespace {

const std::string head = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// The refusal of a kernel with this body, which begins in line 5.
std::string refused(const std::string &body, const std::string &globals = "") {
  Device device;
  return device.refusal(head + ".entry k(.param .u64 p, .param .u32 n) { .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<4>; .reg .b16 %h<4>; .reg .pred %p<3>; " +
                        "\n" + body + "\n}\n" + globals);
}

TEST(Refusals, Instructions) {
  EXPECT_EQ(refused("frob.b32 %r1, %r2;"), "test:5: unknown instruction 'frob.b32'");
  EXPECT_EQ(refused("add.s32.fast %r1, %r2, %r3;"), "test:5: unknown '.fast' in 'add.s32.fast'");
  EXPECT_EQ(refused("add %r1, %r2, %r3;"), "test:5: 'add' needs a type");
  EXPECT_EQ(refused("add.s32 %r1, %r2;"), "test:5: 'add.s32' takes 3 operands, found 2");
  EXPECT_EQ(refused("add.s32 %r1, %r2, %r77;"), "test:5: '%r77' is neither declared nor a special register that is known");
  EXPECT_EQ(refused("add.s32 %r1, %r2, %p1;"), "test:5: 'add.s32' does not take a predicate here");
  EXPECT_EQ(refused("add.s64 %rd1, %rd2, %r3;"), "test:5: 'add.s64' reads 64 bits from a register of 32");
  EXPECT_EQ(refused("add.s64 %r1, %rd2, %rd3;"), "test:5: 'add.s64' writes 64 bits to a register of 32");
  EXPECT_EQ(refused("add.f32 %f1, %f2, 3;"), "test:5: 'add.f32' takes no integer here");
  EXPECT_EQ(refused("shr.f32 %f1, %f2, 3;"), "test:5: malformed 'shr.f32'");
  EXPECT_EQ(refused("popc.u32 %r1, %r2;"), "test:5: 'popc.u32' is not known for this type");
  EXPECT_EQ(refused("cvt.f32.s32 %f1, %r1;"), "test:5: 'cvt.f32.s32' needs a rounding: .rn, .rz, .rm or .rp");
  EXPECT_EQ(refused("cvt.s32.f32 %r1, %f1;"), "test:5: 'cvt.s32.f32' needs a rounding: .rni, .rzi, .rmi or .rpi");
  EXPECT_EQ(refused("setp.num.s32 %p1, %r1, %r2;"), "test:5: 'setp.num.s32' is not known for this type");
  EXPECT_EQ(refused("bra nowhere;"), "test:5: 'nowhere' is not declared");
  EXPECT_EQ(refused("@%r1 bra nowhere;"), "test:5: '%r1' is no predicate");
  EXPECT_EQ(refused("here: here: ret;"), "test:5: label 'here' stands twice");
  EXPECT_EQ(refused("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1}, {%f1}, {%f1}, {%f1};"),
            "test:5: 'mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32' takes 4 registers as operand 1");
  EXPECT_EQ(refused("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%rd1, %rd2}, {%rd1}, {%rd1}, {%rd1, %rd2};"),
            "test:5: 'mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64' is not supported by the stand-in");
  EXPECT_EQ(refused("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r1}, [%r2];"), "test:5: 'ldmatrix.sync.aligned.m8n8.x2.shared.b16' needs 2 registers in braces");
  EXPECT_EQ(refused("ldmatrix.sync.aligned.m8n8.x1.b16 {%r1}, [%rd2];"), "test:5: 'ldmatrix.sync.aligned.m8n8.x1.b16' is not supported by the stand-in");
  EXPECT_EQ(refused("cvt.rn.tf32.f32 %r1, %f1;"), "test:5: 'cvt.rn.tf32.f32' is not supported by the stand-in");
  EXPECT_EQ(refused("shfl.bfly.b32 %r1, %r2, 1, 31;"), "test:5: 'shfl.bfly.b32' without .sync is not supported");
  EXPECT_EQ(refused("cp.async.bulk.commit_group;"), "test:5: unknown '.bulk' in 'cp.async.bulk.commit_group'");
  EXPECT_EQ(refused("barrier.cluster.arrive;"), "test:5: 'barrier.cluster.arrive' is not supported by the stand-in");
  EXPECT_EQ(refused("lop3.b32 %r1, %r2, %r3, %r4, 256;"), "test:5: 'lop3.b32' needs a table from 0 to 255");
}

TEST(Refusals, Memory) {
  EXPECT_EQ(refused("ld.param.u64 %rd1, [n];"), "test:5: 'ld.param.u64' of bytes 0 to 7 of parameter 'n', which has 4");
  EXPECT_EQ(refused("ld.param.u32 %r1, [p+8];"), "test:5: 'ld.param.u32' of bytes 8 to 11 of parameter 'p', which has 8");
  EXPECT_EQ(refused("ld.param.u32 %r1, [p+2];"), "test:5: 'ld.param.u32' is not aligned");
  EXPECT_EQ(refused("st.param.u32 [n], %r1;"), "test:5: 'st.param.u32' writes to parameter 'n'");
  EXPECT_EQ(refused(".shared .b32 s; ld.global.u32 %r1, [s];"), "test:5: 'ld.global.u32' of 's', which is in .shared");
  EXPECT_EQ(refused("ld.global.u32 %r1, %r2;"), "test:5: 'ld.global.u32' needs an address in brackets");
  EXPECT_EQ(refused("ld.global.u32 %r1, [%h1];"), "test:5: an address is in a register of 32 or 64 bits");
  EXPECT_EQ(refused("ld.global.v2.u32 %r1, [%rd1];"), "test:5: 'ld.global.v2.u32' needs 2 registers in braces");
  EXPECT_EQ(refused("ld.shared.global.u32 %r1, [%rd1];"), "test:5: 'ld.shared.global.u32' names two spaces");
  EXPECT_EQ(refused("st.const.u32 [%rd1], %r1;"), "test:5: 'st.const.u32' writes to .const");
  EXPECT_EQ(refused("atom.local.add.u32 %r1, [%rd1], 1;"), "test:5: 'atom.local.add.u32' is for global and shared memory");
  EXPECT_EQ(refused("atom.global.mul.u32 %r1, [%rd1], 1;"), "test:5: unknown operation in 'atom.global.mul.u32'");
  EXPECT_EQ(refused(".shared .align 4 .b8 s[300000]; mov.u32 %r1, s;"), "test:5: shared variable 's' has more than 227 KiB");
  EXPECT_EQ(refused(".local .b8 big[600000];"), "test:5: more than 524288 bytes of local memory");
  EXPECT_EQ(refused("mov.u64 {%r1, %h1}, %rd1;"), "test:5: 'mov.u64' writes 32 bits to a register of 16");
  EXPECT_EQ(refused("mov.b64 {%r1, %r2, %r3}, %rd1;"), "test:5: 'mov.b64' cannot be split so");
}

TEST(Refusals, Declarations) {
  Device device;
  EXPECT_EQ(device.refusal(""), "test:1: no .version: this is no PTX");
  EXPECT_EQ(device.refusal("\x7f" "ELF"), "test:1: unexpected character");
  EXPECT_EQ(device.refusal(".version 8.0\n.target sm_80\n.address_size 32\n"), "test:3: address size 32 is not supported, only 64");
  EXPECT_EQ(device.refusal(".version 8.0\n.target gfx90\n"), "test:2: unknown target 'gfx90'");
  EXPECT_EQ(device.refusal(head + ".extern .global .b32 x;"), "test:4: external variable 'x': modules are not linked with one another");
  EXPECT_EQ(device.refusal(head + ".global .b32 x[2] = {1, 2, 3};"), "test:4: more initial values than 'x' has elements");
  EXPECT_EQ(device.refusal(head + ".global .b32 x;\n.global .b32 x;"), "test:5: 'x' is declared twice");
  EXPECT_EQ(device.refusal(head + ".global .b8 x[99999][99999];"), "test:4: variable 'x' is larger than 4294967296 bytes");
  EXPECT_EQ(device.refusal(head + ".global .u64 x = y;"), "test:4: 'y' is no variable whose address is known");
  EXPECT_EQ(device.refusal(head + ".global .u32 x = x;"), "test:4: an address in 'x' needs elements of 64 bits");
  EXPECT_EQ(device.refusal(head + ".global .align 3 .b8 x;"), "test:4: alignment 3 is no power of two up to 4096");
  EXPECT_EQ(device.refusal(head + ".entry k() { .reg .b32 %r<2000000>; }"), "test:4: more than 1048576 registers");
  EXPECT_EQ(device.refusal(head + ".entry k() { .reg .b32 %r; .reg .b64 %r; }"), "test:4: register '%r' is declared twice");
  EXPECT_EQ(device.refusal(head + ".entry k() { ret; }\n.entry k() { ret; }"), "test:5: function 'k' is defined twice");
  EXPECT_EQ(device.refusal(head + ".entry k() .reqnctapercluster 2 { ret; }"), "test:4: '.reqnctapercluster' is not supported");
  EXPECT_EQ(device.refusal(head + ".func f () { call f; ret; }"), "test:4: function 'f' is recursive, which is not supported");
  EXPECT_EQ(device.refusal(head + ".func g ();\n.func f () { call g; ret; }\n.func g () { call f; ret; }"),
            "test:6: function 'g' is recursive, which is not supported");
  EXPECT_EQ(device.refusal(head + ".extern .func g ();\n.entry k() { call g; ret; }"), "test:5: function 'g' is called but not defined");
  EXPECT_EQ(device.refusal(head + ".func g () { ret; }\n.entry k() { .reg .b32 %r; call g, (%r); ret; }"),
            "test:5: 'g' has 0 results and 0 parameters, the call 0 and 1");
  EXPECT_EQ(device.refusal(head + ".entry k() { .reg .b64 %r; call %r, (); }"), "test:4: 'call' of a function that is not named is not supported");
  EXPECT_EQ(device.refusal(head + ".entry k() { ret; "), "test:4: expected an instruction, found the end of the text");
  EXPECT_EQ(device.refusal(head + "/* "), "test:4: comment is not closed");
  EXPECT_EQ(device.refusal(head + ".func unused () { .reg .b32 %r;\nfrob.b32 %r; ret; }"), "test:5: unknown instruction 'frob.b32'");
  EXPECT_EQ(device.refusal(head + ".entry a() { ret; }\n.entry b() { call a; ret; }"), "test:5: kernel 'a' is called");
  EXPECT_EQ(device.refusal(head + ".alias a, b;"), "test:4: '.alias' is not supported");
  // What a refused module had allocated is free again.
  EXPECT_EQ(device.memory.bytesInUse(), 0u);
}

TEST(Lexer, Words) {
  ptx::Lexer lexer("@%p1 ld.global.L2::128B.v4.f32 {%f1}, [$x+-0x10]; // note\n0f3F800000 1.5e3 0b11 017 42U \"a\\\"b\" here:");
  const std::pair<ptx::Token::Kind, const char *> expected[] = {
      {ptx::Token::Punctuation, "@"}, {ptx::Token::Word, "%p1"}, {ptx::Token::Word, "ld.global.L2::128B.v4.f32"}, {ptx::Token::Punctuation, "{"},
      {ptx::Token::Word, "%f1"}, {ptx::Token::Punctuation, "}"}, {ptx::Token::Punctuation, ","}, {ptx::Token::Punctuation, "["}, {ptx::Token::Word, "$x"},
      {ptx::Token::Punctuation, "+"}, {ptx::Token::Punctuation, "-"}, {ptx::Token::Integer, "0x10"}, {ptx::Token::Punctuation, "]"},
      {ptx::Token::Punctuation, ";"}, {ptx::Token::Float, "0f3F800000"}, {ptx::Token::Float, "1.5e3"}, {ptx::Token::Integer, "0b11"},
      {ptx::Token::Integer, "017"}, {ptx::Token::Integer, "42U"}, {ptx::Token::String, "a\\\"b"}, {ptx::Token::Word, "here"}, {ptx::Token::Punctuation, ":"}};
  std::vector<uint64_t> values;
  bool second = false;
  for (auto [kind, text] : expected) {
    ptx::Token token = lexer.next();
    EXPECT_EQ(token.kind, kind) << text;
    EXPECT_EQ(token.text.str(), text);
    second |= token.text == "0f3F800000";
    EXPECT_EQ(token.line, second ? 2u : 1u);
    if (kind == ptx::Token::Integer || kind == ptx::Token::Float)
      values.push_back(token.value);
  }
  EXPECT_EQ(values, (std::vector<uint64_t>{16, 0x3f800000, 0x4097700000000000, 3, 15, 42}));
  EXPECT_EQ(lexer.next().kind, ptx::Token::End);
  EXPECT_EQ(lexer.next().kind, ptx::Token::End);
}

/// A text with most of what the parser knows.
const char *const seed = R"(// a comment
.version 8.0
.target sm_90, debug
.address_size 64
.file 1 "model.dl"
.const .align 4 .u32 table[2][2] = {{1, 2}, {3, -4}};
.global .align 8 .u64 pointers[2] = {generic(table)+4, table};
.visible .global .f32 value = 0f3F800000;
.extern .shared .align 16 .b8 dynamic[];
.extern .func (.param .b32 result) vprintf (.param .b64 a, .param .b64 b);
.func (.param .b32 out) routine (.param .b32 in, .param .align 8 .b8 s[16]) .noreturn
{
  .reg .b32 %r<3>;
  ld.param.b32 %r1, [in];
  st.param.b32 [out], %r1;
  trap;
}
.visible .entry k(.param .u64 .ptr .global .align 16 p, .param .align 4 .b8 q[12]) .maxntid 128, 1, 1 .minnctapersm 2
{
  .reg .pred %p<3>; .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<9>;
  .local .align 8 .b8 depot[16]; .shared .b32 word[4];
  .loc 1 4 7, function_name $L__info_string0, inlined_at 1 9 2
  .pragma "nounroll";
  ld.param.u64 %rd1, [p]; setp.lt.and.s32 %p1|%p2, %r1, 5, !%p1;
$L__BB0_1: @!%p1 bra.uni $L__BB0_2;
  { .param .b32 param0; .param .align 8 .b8 param1[16]; .param .b32 retval0; st.param.b32 [param0], %r1;
    call.uni (retval0), routine, (param0, param1); ld.param.b32 %r2, [retval0]; }
  mov.b64 %rd2, {%r1, %r2}; mov.b64 {_, %r3}, %rd2; ld.global.nc.v2.f32 {%f1, %f2}, [%rd1+-8]; st.shared.u32 [word+4], %r1;
targets: .branchtargets $L__BB0_1, $L__BB0_2;
  brx.idx %r1, targets;
$L__BB0_2: ret;
}
.section .debug_str { $L__info_string0: .b8 1, 2, 3 }
)";

TEST(Robustness, Truncations) {
  StringRef text = seed;
  for (size_t length = 0; length <= text.size(); ++length) {
    Expected<std::unique_ptr<ptx::Program>> program = ptx::parse(text.take_front(length), "cut");
    if (!program)
      EXPECT_EQ(toString(program.takeError()).substr(0, 4), "cut:");
  }
  Expected<std::unique_ptr<ptx::Program>> whole = ptx::parse(text, "cut");
  ASSERT_TRUE(bool(whole)) << toString(whole.takeError());
  EXPECT_EQ((*whole)->functions.size(), 3u);
  Device device;
  device.load(text);
}

/// Mutations of the text: characters and lines that go, come, or change. Whatever it is, it is refused with a line, or loaded.
TEST(Robustness, Mutations) {
  std::mt19937 random(1);
  StringRef text = seed;
  const char alphabet[] = "%.,;:{}[]()<>+-|!@_$0f1dx9ar\"/* \n";
  unsigned accepted = 0, refusals = 0;
  Memory memory;
  for (int round = 0; round < 4000; ++round) {
    std::string changed = text.str();
    for (unsigned edits = 1 + random() % 3; edits; --edits) {
      size_t at = random() % changed.size(), count = random() % 12;
      switch (random() % 4) {
      case 0: changed.erase(at, count); break;
      case 1: changed.insert(at, 1, alphabet[random() % (sizeof(alphabet) - 1)]); break;
      case 2: changed[at] = alphabet[random() % (sizeof(alphabet) - 1)]; break;
      default: changed.insert(at, changed.substr(random() % changed.size(), count)); break;
      }
    }
    Expected<std::unique_ptr<ptx::Program>> program = ptx::parse(changed, "m");
    if (!program) {
      ++refusals;
      EXPECT_EQ(toString(program.takeError()).substr(0, 2), "m:");
      continue;
    }
    ++accepted;
    if (accepted % 16)
      continue; // the rest of the way costs more
    Expected<std::unique_ptr<Module>> module = Module::load(memory, changed, "m");
    if (!module)
      EXPECT_EQ(toString(module.takeError()).substr(0, 2), "m:") << changed;
  }
  EXPECT_GT(accepted, 100u);
  EXPECT_GT(refusals, 100u);
}

} // namespace
