/*===- program.c - a program that opens the driver as a product does -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * standin-program LIBRARY [leak]: doubles 64 numbers three times by a captured graph. Exits 0 if they are right, 1 if a
 * call fails or they are not, 3 if there is no device.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct opaque *handle;

static void *library;

/* A function by its exported name. */
#define GET(type, name) ((int(*) type)dlsym(library, name))
#define CHECK(call)                                                                                                    \
  do {                                                                                                                 \
    int result = call;                                                                                                 \
    if (result) {                                                                                                      \
      fprintf(stderr, "%s: %d\n", #call, result);                                                                      \
      return result == 100 ? 3 : 1;                                                                                    \
    }                                                                                                                  \
  } while (0)

static const char ptx[] = ".version 7.0\n.target sm_70\n.address_size 64\n"
                          ".visible .entry twice(.param .u64 x)\n{\n"
                          "  .reg .b32 %r<2>;\n  .reg .f32 %f<3>;\n  .reg .b64 %rd<5>;\n"
                          "  ld.param.u64 %rd1, [x];\n  cvta.to.global.u64 %rd2, %rd1;\n  mov.u32 %r1, %tid.x;\n"
                          "  mul.wide.u32 %rd3, %r1, 4;\n  add.s64 %rd4, %rd2, %rd3;\n  ld.global.f32 %f1, [%rd4];\n"
                          "  add.f32 %f2, %f1, %f1;\n  st.global.f32 [%rd4], %f2;\n  ret;\n}\n";

int main(int argc, char **argv) {
  int leak = argc > 2 && strcmp(argv[2], "leak") == 0;
  library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  handle context, module, function, stream, graph, executable;
  uint64_t x;
  void *pinned;
  CHECK(GET((unsigned), "cuInit")(0));
  CHECK(GET((handle *, int), "cuDevicePrimaryCtxRetain")(&context, 0));
  CHECK(GET((handle), "cuCtxPushCurrent_v2")(context));
  CHECK(GET((handle *, const void *), "cuModuleLoadData")(&module, ptx));
  CHECK(GET((handle *, handle, const char *), "cuModuleGetFunction")(&function, module, "twice"));
  CHECK(GET((uint64_t *, size_t), "cuMemAlloc_v2")(&x, 256));
  CHECK(GET((void **, size_t, unsigned), "cuMemHostAlloc")(&pinned, 256, 0));
  CHECK(GET((handle *, unsigned), "cuStreamCreate")(&stream, 1));

  CHECK(GET((handle, int), "cuStreamBeginCapture_v2")(stream, 0));
  CHECK(GET((uint64_t, const void *, size_t, handle), "cuMemcpyHtoDAsync_v2")(x, pinned, 256, stream));
  void *parameters[] = {&x};
  CHECK(GET((handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, handle, void **, void **),
            "cuLaunchKernel")(function, 1, 1, 1, 64, 1, 1, 0, stream, parameters, NULL));
  CHECK(GET((handle, handle *), "cuStreamEndCapture")(stream, &graph));
  CHECK(GET((handle *, handle, unsigned long long), "cuGraphInstantiateWithFlags")(&executable, graph, 0));
  CHECK(GET((handle), "cuGraphDestroy")(graph));
  for (int step = 0; step < 3; ++step) {
    for (int i = 0; i < 64; ++i)
      ((float *)pinned)[i] = (float)(i + step);
    CHECK(GET((handle, handle), "cuGraphLaunch")(executable, stream));
    CHECK(GET((handle), "cuStreamSynchronize")(stream));
  }
  CHECK(GET((void *, uint64_t, size_t, handle), "cuMemcpyDtoHAsync_v2")(pinned, x, 256, stream));
  CHECK(GET((handle), "cuStreamSynchronize")(stream));
  int good = 1;
  for (int i = 0; i < 64; ++i)
    good = good && ((float *)pinned)[i] == 2.0f * (float)(i + 2);
  if (!leak) {
    CHECK(GET((handle), "cuGraphExecDestroy")(executable));
    CHECK(GET((handle), "cuStreamDestroy_v2")(stream));
    CHECK(GET((void *), "cuMemFreeHost")(pinned));
    CHECK(GET((uint64_t), "cuMemFree_v2")(x));
    CHECK(GET((handle), "cuModuleUnload")(module));
    CHECK(GET((int), "cuDevicePrimaryCtxRelease_v2")(0));
  }
  return good ? 0 : 1;
}
