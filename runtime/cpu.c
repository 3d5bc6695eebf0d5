/*===- cpu.c - does this processor have what an artefact needs -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * Own cpuid and xgetbv rather than the compiler's __cpu_model: that lives in libgcc, which
 * artefacts do not link, and a feature counts only if the operating system saves its registers.
 */
#include "internal.h"

#include <string.h>

#if defined(__x86_64__)

enum { EAX, EBX, ECX, EDX };
/* Registers that the operating system must save: bits of XCR0. */
enum { NONE = 0, YMM = 0x6, ZMM = 0xe6, TMM = 0x60000, EGPR = 0x80000 };

/* LLVM's names of x86 features. */
static const struct {
  char name[20];
  uint32_t leaf;
  uint8_t subleaf, reg, bit;
  uint32_t saved;
} features[] = {
    {"x87", 1, 0, EDX, 0, NONE},
    {"cx8", 1, 0, EDX, 8, NONE},
    {"cmov", 1, 0, EDX, 15, NONE},
    {"mmx", 1, 0, EDX, 23, NONE},
    {"fxsr", 1, 0, EDX, 24, NONE},
    {"sse", 1, 0, EDX, 25, NONE},
    {"sse2", 1, 0, EDX, 26, NONE},
    {"sse3", 1, 0, ECX, 0, NONE},
    {"pclmul", 1, 0, ECX, 1, NONE},
    {"ssse3", 1, 0, ECX, 9, NONE},
    {"fma", 1, 0, ECX, 12, YMM},
    {"cx16", 1, 0, ECX, 13, NONE},
    {"sse4.1", 1, 0, ECX, 19, NONE},
    {"sse4.2", 1, 0, ECX, 20, NONE},
    {"crc32", 1, 0, ECX, 20, NONE},
    {"movbe", 1, 0, ECX, 22, NONE},
    {"popcnt", 1, 0, ECX, 23, NONE},
    {"aes", 1, 0, ECX, 25, NONE},
    {"xsave", 1, 0, ECX, 27, NONE}, /* OSXSAVE: the operating system uses it */
    {"avx", 1, 0, ECX, 28, YMM},
    {"f16c", 1, 0, ECX, 29, YMM},
    {"rdrnd", 1, 0, ECX, 30, NONE},
    {"fsgsbase", 7, 0, EBX, 0, NONE},
    {"sgx", 7, 0, EBX, 2, NONE},
    {"bmi", 7, 0, EBX, 3, NONE},
    {"avx2", 7, 0, EBX, 5, YMM},
    {"bmi2", 7, 0, EBX, 8, NONE},
    {"invpcid", 7, 0, EBX, 10, NONE},
    {"rtm", 7, 0, EBX, 11, NONE},
    {"avx512f", 7, 0, EBX, 16, ZMM},
    {"evex512", 7, 0, EBX, 16, ZMM},
    {"avx512dq", 7, 0, EBX, 17, ZMM},
    {"rdseed", 7, 0, EBX, 18, NONE},
    {"adx", 7, 0, EBX, 19, NONE},
    {"avx512ifma", 7, 0, EBX, 21, ZMM},
    {"clflushopt", 7, 0, EBX, 23, NONE},
    {"clwb", 7, 0, EBX, 24, NONE},
    {"avx512cd", 7, 0, EBX, 28, ZMM},
    {"sha", 7, 0, EBX, 29, NONE},
    {"avx512bw", 7, 0, EBX, 30, ZMM},
    {"avx512vl", 7, 0, EBX, 31, ZMM},
    {"avx512vbmi", 7, 0, ECX, 1, ZMM},
    {"pku", 7, 0, ECX, 4, NONE}, /* OSPKE */
    {"waitpkg", 7, 0, ECX, 5, NONE},
    {"avx512vbmi2", 7, 0, ECX, 6, ZMM},
    {"shstk", 7, 0, ECX, 7, NONE},
    {"gfni", 7, 0, ECX, 8, NONE},
    {"vaes", 7, 0, ECX, 9, YMM},
    {"vpclmulqdq", 7, 0, ECX, 10, YMM},
    {"avx512vnni", 7, 0, ECX, 11, ZMM},
    {"avx512bitalg", 7, 0, ECX, 12, ZMM},
    {"avx512vpopcntdq", 7, 0, ECX, 14, ZMM},
    {"rdpid", 7, 0, ECX, 22, NONE},
    {"kl", 7, 0, ECX, 23, NONE},
    {"cldemote", 7, 0, ECX, 25, NONE},
    {"movdiri", 7, 0, ECX, 27, NONE},
    {"movdir64b", 7, 0, ECX, 28, NONE},
    {"enqcmd", 7, 0, ECX, 29, NONE},
    {"uintr", 7, 0, EDX, 5, NONE},
    {"avx512vp2intersect", 7, 0, EDX, 8, ZMM},
    {"serialize", 7, 0, EDX, 14, NONE},
    {"tsxldtrk", 7, 0, EDX, 16, NONE},
    {"pconfig", 7, 0, EDX, 18, NONE},
    {"amx-bf16", 7, 0, EDX, 22, TMM},
    {"avx512fp16", 7, 0, EDX, 23, ZMM},
    {"amx-tile", 7, 0, EDX, 24, TMM},
    {"amx-int8", 7, 0, EDX, 25, TMM},
    {"sha512", 7, 1, EAX, 0, YMM},
    {"sm3", 7, 1, EAX, 1, YMM},
    {"sm4", 7, 1, EAX, 2, YMM},
    {"raoint", 7, 1, EAX, 3, NONE},
    {"avxvnni", 7, 1, EAX, 4, YMM},
    {"avx512bf16", 7, 1, EAX, 5, ZMM},
    {"cmpccxadd", 7, 1, EAX, 7, NONE},
    {"amx-fp16", 7, 1, EAX, 21, TMM},
    {"hreset", 7, 1, EAX, 22, NONE},
    {"avxifma", 7, 1, EAX, 23, YMM},
    {"movrs", 7, 1, EAX, 31, NONE},
    {"avxvnniint8", 7, 1, EDX, 4, YMM},
    {"avxneconvert", 7, 1, EDX, 5, YMM},
    {"amx-complex", 7, 1, EDX, 8, TMM},
    {"avxvnniint16", 7, 1, EDX, 10, YMM},
    {"prefetchi", 7, 1, EDX, 14, NONE},
    {"usermsr", 7, 1, EDX, 15, NONE},
    {"avx10.1", 7, 1, EDX, 19, ZMM},
    {"apxf", 7, 1, EDX, 21, EGPR},
    {"egpr", 7, 1, EDX, 21, EGPR},
    {"push2pop2", 7, 1, EDX, 21, EGPR},
    {"ppx", 7, 1, EDX, 21, EGPR},
    {"ndd", 7, 1, EDX, 21, EGPR},
    {"ccmp", 7, 1, EDX, 21, EGPR},
    {"nf", 7, 1, EDX, 21, EGPR},
    {"cf", 7, 1, EDX, 21, EGPR},
    {"zu", 7, 1, EDX, 21, EGPR},
    {"xsaveopt", 0xd, 1, EAX, 0, NONE},
    {"xsavec", 0xd, 1, EAX, 1, NONE},
    {"xsaves", 0xd, 1, EAX, 3, NONE},
    {"ptwrite", 0x14, 0, EBX, 4, NONE},
    {"widekl", 0x19, 0, EBX, 2, NONE},
    {"amx-fp8", 0x1e, 1, EAX, 4, TMM},
    {"amx-tf32", 0x1e, 1, EAX, 6, TMM},
    {"amx-avx512", 0x1e, 1, EAX, 7, TMM},
    {"amx-movrs", 0x1e, 1, EAX, 8, TMM},
    {"sahf", 0x80000001, 0, ECX, 0, NONE},
    {"lahf_lm", 0x80000001, 0, ECX, 0, NONE},
    {"lzcnt", 0x80000001, 0, ECX, 5, NONE},
    {"sse4a", 0x80000001, 0, ECX, 6, NONE},
    {"prfchw", 0x80000001, 0, ECX, 8, NONE},
    {"xop", 0x80000001, 0, ECX, 11, YMM},
    {"lwp", 0x80000001, 0, ECX, 15, NONE},
    {"fma4", 0x80000001, 0, ECX, 16, YMM},
    {"tbm", 0x80000001, 0, ECX, 21, NONE},
    {"mwaitx", 0x80000001, 0, ECX, 29, NONE},
    {"64bit", 0x80000001, 0, EDX, 29, NONE},
    {"clzero", 0x80000008, 0, EBX, 0, NONE},
    {"rdpru", 0x80000008, 0, EBX, 4, NONE},
    {"wbnoinvd", 0x80000008, 0, EBX, 9, NONE},
};

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
  __asm__ volatile("cpuid"
                   : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                   : "a"(leaf), "c"(subleaf));
}

/* XCR0, or 0 where the operating system does not use xsave. */
static uint64_t saved_registers(void) {
  uint32_t regs[4], low, high;
  cpuid(1, 0, regs);
  if (!(regs[ECX] >> 27 & 1))
    return 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

static bool has(size_t feature) {
  uint32_t regs[4], leaf = features[feature].leaf;
  cpuid(leaf & 0x80000000u, 0, regs);
  if (regs[EAX] < leaf)
    return false;
  if (features[feature].subleaf && leaf == 7) { /* the leaf's EAX says how many subleaves it has */
    cpuid(leaf, 0, regs);
    if (regs[EAX] < features[feature].subleaf)
      return false;
  }
  cpuid(leaf, features[feature].subleaf, regs);
  return (regs[features[feature].reg] >> features[feature].bit & 1) &&
         (saved_registers() & features[feature].saved) == features[feature].saved;
}

static size_t find(const char *name, size_t length) {
  size_t i = 0;
  while (i < sizeof features / sizeof *features &&
         (strncmp(features[i].name, name, length) != 0 || features[i].name[length] != 0))
    ++i;
  return i;
}
enum { KNOWN = sizeof features / sizeof *features };

#else

static size_t find(const char *name, size_t length) {
  (void)name, (void)length;
  return 0;
}
static bool has(size_t feature) {
  (void)feature;
  return false;
}
enum { KNOWN = 0 };

#endif

dlrt_status dlrt_cpu_check(const char *list) {
  char missing[512], unknown[512];
  size_t missing_bytes = 0, unknown_bytes = 0;
  while (*list) {
    size_t length = strcspn(list, ",");
    size_t feature = length > 0 && length < 20 ? find(list, length) : KNOWN;
    bool known = feature < KNOWN;
    if (length > 0 && !(known && has(feature))) {
      char *text = known ? missing : unknown;
      size_t *used = known ? &missing_bytes : &unknown_bytes;
      if (*used + length + 3 <
          sizeof missing) { /* more names than fit add nothing to the refusal */
        if (*used)
          memcpy(text + *used, ", ", 2), *used += 2;
        memcpy(text + *used, list, length);
        *used += length;
      }
    }
    list += length;
    if (*list == ',')
      ++list;
  }
  missing[missing_bytes] = unknown[unknown_bytes] = 0;
  if (missing_bytes)
    return dlrt_fail(DLRT_INCOMPATIBLE,
                     "needs %s, which this processor or its operating system does not have",
                     missing);
  if (unknown_bytes)
    return dlrt_fail(DLRT_INCOMPATIBLE, "needs %s, which this runtime does not know", unknown);
  return NULL;
}
