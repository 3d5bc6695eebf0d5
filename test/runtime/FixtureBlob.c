/*===- FixtureBlob.c - the tests' model's description as an ELF note -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * The name is padded with NULs so that the description begins at a multiple of DL_BUFFER_ALIGNMENT,
 * as constants want it.
 */
__asm__("  .section .note.dlc, \"a\", @note\n"
        "  .p2align 6\n"
        "  .long 52, 2f - 1f, 1\n"
        "  .ascii \"dlc\"\n"
        "  .zero 49\n"
        "  .globl fixture_blob\n"
        "  .hidden fixture_blob\n"
        "fixture_blob:\n"
        "1:\n"
        "  .incbin \"" FIXTURE_BLOB "\"\n"
        "2:\n"
        "  .p2align 2\n"
        "  .text\n");
