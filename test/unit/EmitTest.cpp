//===- EmitTest.cpp - from LLVM IR to artefacts -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A model written by hand in LLVM IR goes through every step of compiler/emit; what comes out is
// read as ELF, loaded, and linked into programs by the system's linker.
//
//===----------------------------------------------------------------------===//

#include "compiler/emit/CompileCuda.h"
#include "compiler/emit/EmitCuda.h"
#include "compiler/emit/EmitHeader.h"
#include "compiler/emit/EmitObject.h"
#include "compiler/emit/LinkModel.h"
#include "compiler/emit/OutputFile.h"
#include "mlir/IR/MLIRContext.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/AsmParser/Parser.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"
#include "llvm/Object/Archive.h"
#include "llvm/Object/ELFObjectFile.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Target/TargetMachine.h"
#include "gtest/gtest.h"
#include <dlfcn.h>

using namespace dlc;
using namespace llvm;

namespace {

/// y = exp(x) element by element, in one kernel of one task per element.
constexpr StringLiteral modelIr = R"(
  declare float @expf(float)
  define void @kernel(ptr %frame, i64 %begin, i64 %end, ptr %scratch) {
  entry:
    %buffersPlace = getelementptr i8, ptr %frame, i64 8
    %buffers = load ptr, ptr %buffersPlace
    %x = load ptr, ptr %buffers
    %yPlace = getelementptr ptr, ptr %buffers, i64 1
    %y = load ptr, ptr %yPlace
    br label %head
  head:
    %i = phi i64 [%begin, %entry], [%next, %body]
    %more = icmp slt i64 %i, %end
    br i1 %more, label %body, label %done
  body:
    %from = getelementptr float, ptr %x, i64 %i
    %value = load float, ptr %from
    %e = call float @expf(float %value)
    %to = getelementptr float, ptr %y, i64 %i
    store float %e, ptr %to
    %next = add i64 %i, 1
    br label %head
  done:
    ret void
  }
  define void @apply(ptr %frame) {
    %host = load ptr, ptr %frame
    %parallelPlace = getelementptr i8, ptr %host, i64 8
    %parallel = load ptr, ptr %parallelPlace
    %dimsPlace = getelementptr i8, ptr %frame, i64 16
    %dims = load ptr, ptr %dimsPlace
    %n = load i64, ptr %dims
    call void %parallel(ptr %frame, ptr @kernel, i64 %n, i32 0)
    ret void
  }
  define void @init(ptr %frame) {
    ret void
  }
)";

template <typename T> T valueOf(Expected<T> value) {
  if (value)
    return std::move(*value);
  ADD_FAILURE() << toString(value.takeError());
  std::abort();
}

template <typename T> std::string errorOf(Expected<T> value) {
  return value ? std::string("(no error)") : toString(value.takeError());
}

std::string errorOf(Error error) { return error ? toString(std::move(error)) : "(no error)"; }

struct EmitTest : testing::Test {
  mlir::MLIRContext mlirContext;
  dlc::Target target = valueOf(resolveTarget("x86-64-v3"));

  void SetUp() override { ASSERT_FALSE(sys::fs::createUniqueDirectory("dlc-emit-test", folder)); }
  void TearDown() override { sys::fs::remove_directories(folder); }

  std::string path(StringRef name) { return (folder + "/" + name).str(); }

  ModelDescription describe(StringRef name = "tiny") {
    ModelDescription model;
    model.name = name;
    model.doc = "A model of one function.";
    model.dims = {"N"};
    Size n = mlir::getAffineSymbolExpr(0, &mlirContext);
    model.variables = {{"net.0.weight", "", DL_F32, DL_VARIABLE_TRAINED, {3, 4}},
                       {"t", "Counts.", DL_I64, DL_VARIABLE_STATE, {}}};
    FunctionDescription init;
    init.name = "__init";
    init.flags = DL_FUNCTION_INIT;
    init.entrySymbol = "init";
    FunctionDescription apply;
    apply.name = "apply";
    apply.doc = "exp of x,\nelement by element.";
    apply.flags = DL_FUNCTION_CONST;
    apply.entrySymbol = "apply";
    apply.arguments = {{"x", DL_F32, {n}, false, 0}, {"register", DL_F64, {}, true, 0.5}};
    apply.results = {{"out", DL_F32, {n}, false, 0}};
    apply.buffers = {{DL_BUFFER_ARGUMENT, 0, n * Size(4), 0, 0},
                     {DL_BUFFER_RESULT, 0, n * Size(4), 0, 0}};
    apply.kernels = {{"exp", folder.str().str() + "/tiny.dl:3"}, {"pack", "<library>/nn.dl:7"}};
    apply.launchCount = 1;
    apply.checks = {{Size(0).less(n), "N must not be 0"}};
    model.functions = {init, apply}; // in the wrong order on purpose
    model.faults = {{"label {value} is outside its 10 classes", "tiny.dl:4"}};
    return model;
  }

  Expected<SmallVector<char, 0>> compile(ModelDescription &model, StringRef ir = modelIr,
                                         unsigned optLevel = 2) {
    LLVMContext context;
    SMDiagnostic diagnostic;
    std::unique_ptr<Module> module = parseAssemblyString(ir, diagnostic, context);
    if (!module)
      return createStringError(diagnostic.getMessage());
    std::unique_ptr<TargetMachine> machine = valueOf(createTargetMachine(target, optLevel));
    if (Error error = addModelData(*module, model, target))
      return std::move(error);
    optimizeModule(*module, *machine, optLevel);
    return emitObject(*module, *machine);
  }

  SmallVector<char, 0> object(StringRef name = "tiny") {
    ModelDescription model = describe(name);
    return valueOf(compile(model));
  }

  static StringRef text(ArrayRef<char> bytes) { return StringRef(bytes.data(), bytes.size()); }

  Bytes library(StringRef name = "tiny") {
    SmallVector<char, 0> code = object(name);
    return valueOf(linkSharedLibrary({text(code), name.str() + "_dl_query", {}}));
  }

  int run(ArrayRef<StringRef> command) {
    std::string program = valueOf(errorOrToExpected(sys::findProgramByName(command[0])));
    std::string message;
    int code = sys::ExecuteAndWait(program, command, std::nullopt, {}, 0, 0, &message);
    if (!message.empty())
      ADD_FAILURE() << message;
    return code;
  }

  SmallString<128> folder;
};

using Elf = object::ELF64LEObjectFile;

std::unique_ptr<object::ObjectFile> openElf(ArrayRef<char> bytes) {
  return valueOf(object::ObjectFile::createObjectFile(
      MemoryBufferRef(StringRef(bytes.data(), bytes.size()), "elf")));
}

/// Names of the symbols that others can see.
std::vector<std::string> globalSymbols(const object::ObjectFile &file, bool defined) {
  std::vector<std::string> names;
  auto add = [&](const object::SymbolRef &symbol) {
    uint32_t flags = valueOf(symbol.getFlags());
    if (flags & object::SymbolRef::SF_Global &&
        bool(flags & object::SymbolRef::SF_Undefined) != defined)
      names.push_back(valueOf(symbol.getName()).str());
  };
  const auto &elf = cast<Elf>(file);
  bool isDynamic = elf.getELFFile().getHeader().e_type == ELF::ET_DYN;
  if (isDynamic)
    for (const object::ELFSymbolRef &symbol : elf.getDynamicSymbolIterators())
      add(symbol);
  else
    for (const object::SymbolRef &symbol : file.symbols())
      add(symbol);
  llvm::sort(names);
  return names;
}

/// The bytes of the model's note, and where they lie in memory, relative to the load address.
std::pair<ArrayRef<uint8_t>, uint64_t> findNote(const object::ObjectFile &file) {
  const auto &elf = cast<Elf>(file).getELFFile();
  std::pair<ArrayRef<uint8_t>, uint64_t> found;
  for (const auto &header : valueOf(elf.program_headers())) {
    if (header.p_type != ELF::PT_NOTE)
      continue;
    StringRef bytes(reinterpret_cast<const char *>(elf.base() + header.p_offset), header.p_filesz);
    for (size_t at = 0; at + 12 <= bytes.size();) {
      uint32_t words[3];
      memcpy(words, bytes.data() + at, sizeof(words));
      size_t desc = at + 12 + alignTo(words[0], 4);
      if (bytes.substr(at + 12, words[0]) == StringRef(DL_NOTE_NAME, sizeof(DL_NOTE_NAME)) &&
          words[2] == DL_NOTE_TYPE)
        found = {ArrayRef(elf.base() + header.p_offset + desc, words[1]), header.p_vaddr + desc};
      at = desc + alignTo(words[1], 4);
    }
  }
  return found;
}

//===----------------------------------------------------------------------===//
// Targets
//===----------------------------------------------------------------------===//

TEST(Target, Levels) {
  dlc::Target v2 = valueOf(resolveTarget("x86-64-v2"));
  EXPECT_EQ(v2.vectorBits, 128u);
  EXPECT_TRUE(v2.has("sse4.2"));
  EXPECT_FALSE(v2.has("avx"));
  dlc::Target v3 = valueOf(resolveTarget("x86-64-v3"));
  EXPECT_EQ(v3.vectorBits, 256u);
  EXPECT_TRUE(v3.has("fma"));
  EXPECT_FALSE(v3.has("avx512f"));
  dlc::Target v4 = valueOf(resolveTarget("x86-64-v4"));
  EXPECT_EQ(v4.vectorBits, 512u);
  EXPECT_TRUE(v4.has("avx512vl"));
  EXPECT_EQ(v3.featureList(),
            "cx16,popcnt,sahf,sse3,sse4.1,sse4.2,ssse3,avx,avx2,bmi,bmi2,f16c,fma,lzcnt,movbe");
  EXPECT_EQ(v3.triple, "x86_64-unknown-linux-gnu");
}

TEST(Target, Processors) {
  EXPECT_EQ(valueOf(resolveTarget("haswell")).vectorBits, 256u);
  EXPECT_EQ(valueOf(resolveTarget("skylake-avx512")).features,
            valueOf(resolveTarget("x86-64-v4")).features);
  // Xeon Phi has AVX-512 without the parts that our code uses.
  EXPECT_EQ(valueOf(resolveTarget("znver1")).vectorBits, 256u);
  EXPECT_EQ(errorOf(resolveTarget("haswel")),
            "unknown processor 'haswel'; did you mean 'haswell'?");
  EXPECT_NE(errorOf(resolveTarget("quantum9000")).find("-march takes native"), std::string::npos);
  EXPECT_NE(errorOf(resolveTarget("")).find("unknown processor ''"), std::string::npos);
  EXPECT_EQ(errorOf(resolveTarget("pentium4")),
            "processor 'pentium4' is 32-bit; dlc compiles for x86-64");
  EXPECT_EQ(
      errorOf(resolveTarget("native", "aarch64-linux-gnu")),
      "target 'aarch64-linux-gnu' is not supported yet; dlc compiles for x86_64-unknown-linux-gnu");
}

TEST(Target, NativeRunsHere) {
  dlc::Target native = valueOf(resolveTarget("native"));
#if defined(__x86_64__)
  EXPECT_EQ(native.has("avx2"), bool(__builtin_cpu_supports("avx2")));
  EXPECT_EQ(native.has("avx512vl"), bool(__builtin_cpu_supports("avx512vl")));
  EXPECT_EQ(native.has("fma"), bool(__builtin_cpu_supports("fma")));
#endif
}

TEST_F(EmitTest, WideVectorsAreUsedWhereTheyAreAsked) {
  // Processors that prefer 256 bits in compilers that choose the width get 512 where the IR says
  // so.
  for (StringRef march : {"x86-64-v4", "skylake-avx512", "sapphirerapids"}) {
    target = valueOf(resolveTarget(march));
    LLVMContext context;
    SMDiagnostic diagnostic;
    std::unique_ptr<Module> module = parseAssemblyString(R"(
      define void @apply(ptr %p) {
        %a = load <16 x float>, ptr %p
        %b = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %a, <16 x float> %a)
        store <16 x float> %b, ptr %p
        ret void
      })",
                                                         diagnostic, context);
    ModelDescription model = describe();
    model.functions.erase(model.functions.begin());
    std::unique_ptr<TargetMachine> machine = valueOf(createTargetMachine(target, 2));
    ASSERT_EQ(errorOf(addModelData(*module, model, target)), "(no error)");
    optimizeModule(*module, *machine, 2);
    SmallVector<char, 0> assembly = valueOf(emitAssembly(*module, *machine));
    EXPECT_TRUE(text(assembly).contains("%zmm")) << march.str();
  }
}

TEST_F(EmitTest, ProductsAndSumsStayApart) {
  for (unsigned level : {0u, 3u}) {
    LLVMContext context;
    SMDiagnostic diagnostic;
    std::unique_ptr<Module> module = parseAssemblyString(R"(
      define void @apply(ptr %p) {
        %a = load float, ptr %p
        %b = fmul float %a, %a
        %c = fadd float %b, %a
        store float %c, ptr %p
        ret void
      })",
                                                         diagnostic, context);
    ModelDescription model = describe();
    model.functions.erase(model.functions.begin());
    std::unique_ptr<TargetMachine> machine = valueOf(createTargetMachine(target, level));
    ASSERT_EQ(errorOf(addModelData(*module, model, target)), "(no error)");
    optimizeModule(*module, *machine, level);
    SmallVector<char, 0> assembly = valueOf(emitAssembly(*module, *machine));
    EXPECT_FALSE(text(assembly).contains("vfmadd"));
    EXPECT_TRUE(text(assembly).contains("vmulss"));
  }
}

//===----------------------------------------------------------------------===//
// Descriptions
//===----------------------------------------------------------------------===//

TEST_F(EmitTest, SizesBecomePostfixCode) {
  mlir::AffineExpr n = mlir::getAffineSymbolExpr(0, &mlirContext),
                   m = mlir::getAffineSymbolExpr(1, &mlirContext);
  Size size((n * 3 + m).floorDiv(4));
  EXPECT_EQ(size.getCode(),
            ArrayRef<int64_t>({DL_SIZE_DIM, 0, DL_SIZE_CONST, 3, DL_SIZE_MUL, DL_SIZE_DIM, 1,
                               DL_SIZE_ADD, DL_SIZE_CONST, 4, DL_SIZE_FLOORDIV}));
  EXPECT_EQ(size.asConstant(), std::nullopt);
  EXPECT_EQ(Size(7).asConstant(), 7);
  EXPECT_EQ(Size(n).equal(Size(m)).negated().toC({"N", "M"}), "!(N == M)");
  EXPECT_EQ((Size(n) * Size(4) + Size(m)).toC({"N", "M"}), "((N * 4) + M)");
  EXPECT_EQ(size.evaluate({5, 2}), 4);
  EXPECT_EQ(size.evaluate({-5, 2}), -4); // -13 / 4, rounded down
  EXPECT_EQ(Size(-13).ceilDiv(4).evaluate({}), -3);
  EXPECT_EQ(Size(-13).mod(4).evaluate({}), 3);
  EXPECT_EQ(Size(7).mod(0).evaluate({}), std::nullopt);
  EXPECT_EQ((Size(INT64_MAX) + Size(1)).evaluate({}), std::nullopt);
  EXPECT_EQ((Size(n) * Size(INT64_MAX)).evaluate({2}), std::nullopt);
  EXPECT_EQ(Size(n).lessEqual(Size(m)).both(Size(n).notEqual(Size(m))).evaluate({2, 3}), 1);
  EXPECT_EQ(Size(n).lessEqual(Size(m)).both(Size(n).notEqual(Size(m))).evaluate({3, 3}), 0);
  std::vector<bool> used;
  Size(m).collectDims(used);
  EXPECT_EQ(used, std::vector<bool>({false, true}));
}

TEST_F(EmitTest, BlobHoldsTheDescription) {
  ModelDescription model = describe();
  model.sortFunctions();
  model.constants = {{1, 2, 3}, std::vector<char>(100, 'x')};
  model.functions[0].buffers.push_back({DL_BUFFER_CONSTANT, 1, Size(100), 0, 0});
  Blob blob = valueOf(serialize(model));
  EXPECT_EQ(blob.alignment, 64u);
  const char *base = blob.bytes.data();
  auto string = [&](dl_ref ref) { return std::string(base + ref); };
  dl_blob head;
  memcpy(&head, base, sizeof(head));
  EXPECT_STREQ(head.magic, DL_BLOB_MAGIC);
  EXPECT_EQ(head.abi_version, DL_ABI_VERSION);
  EXPECT_EQ(head.blob_bytes, blob.bytes.size());
  EXPECT_EQ(string(head.name), "tiny");
  EXPECT_EQ(string(head.query), "tiny_dl_query");
  ASSERT_EQ(head.variable_count, 2u);
  auto *variables = reinterpret_cast<const dl_variable_desc *>(base + head.variables);
  EXPECT_EQ(string(variables[0].name), "net.0.weight");
  EXPECT_EQ(variables[0].bytes, 48u);
  EXPECT_EQ(reinterpret_cast<const int64_t *>(base + variables[0].dims)[1], 4);
  EXPECT_EQ(variables[1].bytes, 8u);
  EXPECT_EQ(variables[1].dims, 0u);
  ASSERT_EQ(head.function_count, 2u);
  auto *functions = reinterpret_cast<const dl_function_desc *>(base + head.functions);
  EXPECT_EQ(string(functions[0].name), "apply"); // what users see comes first
  EXPECT_EQ(string(functions[1].name), "__init");
  auto *buffers = reinterpret_cast<const dl_buffer_desc *>(base + functions[0].buffers);
  ASSERT_EQ(functions[0].buffer_count, 3u);
  EXPECT_EQ(buffers[2].index % DL_BUFFER_ALIGNMENT, 0u);
  EXPECT_EQ(std::string(base + buffers[2].index, 100), std::string(100, 'x'));
  auto *arguments = reinterpret_cast<const dl_value_desc *>(base + functions[0].arguments);
  EXPECT_EQ(arguments[1].default_value, 0.5);
  EXPECT_EQ(arguments[1].has_default, 1);
  auto *size = reinterpret_cast<const dl_size *>(base + buffers[0].bytes);
  ASSERT_EQ(size->count, 5u); // N 4 *
  EXPECT_EQ(size->code[4], DL_SIZE_MUL);
}

TEST_F(EmitTest, BrokenDescriptionsAreRefused) {
  ModelDescription model = describe();
  model.functions[1].buffers[0].index = 2;
  EXPECT_EQ(errorOf(serialize(model)),
            "internal compiler error: the description of model 'tiny' has buffer 0 of function "
            "'apply' for number 2 of 2");
  model = describe();
  model.variables[0].dims = {INT64_MAX, 2};
  EXPECT_EQ(errorOf(serialize(model)),
            "variable 'net.0.weight' is too large: its bytes exceed 64 bits");
  model = describe();
  model.variables[0].dims.assign(9, 1);
  EXPECT_EQ(errorOf(serialize(model)),
            "variable 'net.0.weight' has rank 9; at most 8 is supported");
  model = describe();
  model.functions[0].doc.assign(70000, 'x');
  EXPECT_EQ(
      errorOf(serialize(model)),
      "the documentation of function '__init' is 70000 bytes long; at most 65536 are supported");
  model = describe();
  model.dims.clear();
  EXPECT_NE(errorOf(serialize(model)).find("depends on dimension 0 of 0"), std::string::npos);
}

//===----------------------------------------------------------------------===//
// Objects
//===----------------------------------------------------------------------===//

TEST_F(EmitTest, ObjectsNeedOnlyWhatArtefactsMay) {
  ModelDescription model = describe();
  EXPECT_EQ(errorOf(compile(model, R"(
    declare void @malloc(i64)
    define void @init(ptr %f) { ret void }
    define void @apply(ptr %f) { call void @malloc(i64 8) ret void })")),
            "internal compiler error: generated code needs 'malloc', which no artefact has");
  model = describe();
  EXPECT_EQ(errorOf(compile(model, "define void @init(ptr %f) { ret void }")),
            "internal compiler error: function 'apply' has no entry 'apply'");
  model = describe("apply");
  model.functions[1].entrySymbol = "apply_dl_query";
  EXPECT_NE(errorOf(compile(model, R"(
    define void @init(ptr %f) { ret void }
    define void @apply_dl_query(ptr %f) { ret void })"))
                .find("'apply_dl_query' is a symbol of every artefact"),
            std::string::npos);
  SmallVector<char, 0> good = object();
  EXPECT_EQ(globalSymbols(*openElf(good), /*defined=*/true),
            std::vector<std::string>{"tiny_dl_query"});
  EXPECT_EQ(globalSymbols(*openElf(good), /*defined=*/false),
            (std::vector<std::string>{"dlrt_runtime_api", "expf"}));
}

//===----------------------------------------------------------------------===//
// Artefacts
//===----------------------------------------------------------------------===//

TEST_F(EmitTest, SharedLibrary) {
  Bytes bytes = library();
  std::unique_ptr<object::ObjectFile> elf = openElf(bytes);
  EXPECT_EQ(globalSymbols(*elf, /*defined=*/true), std::vector<std::string>{"tiny_dl_query"});
  std::vector<std::string> needed;
  bool hasSoname = false, hasRunpath = false;
  const auto &file = cast<Elf>(*elf).getELFFile();
  uint64_t strings = 0;
  auto dynamic = valueOf(file.dynamicEntries());
  for (const auto &entry : dynamic)
    if (entry.getTag() == ELF::DT_STRTAB)
      strings = entry.getVal();
  const char *names = reinterpret_cast<const char *>(valueOf(file.toMappedAddr(strings)));
  for (const auto &entry : dynamic) {
    if (entry.getTag() == ELF::DT_NEEDED)
      needed.push_back(names + entry.getVal());
    hasSoname |= entry.getTag() == ELF::DT_SONAME;
    hasRunpath |= entry.getTag() == ELF::DT_RUNPATH || entry.getTag() == ELF::DT_RPATH;
  }
  EXPECT_FALSE(hasSoname);
  EXPECT_FALSE(hasRunpath);
  EXPECT_TRUE(is_contained(needed, "libm.so.6"));
  for (const std::string &name : needed)
    EXPECT_TRUE(name == "libm.so.6" || name == "libc.so.6") << name;
  EXPECT_FALSE(text(bytes).contains(folder));
  EXPECT_FALSE(text(bytes).contains("/tmp"));

  auto [note, address] = findNote(*elf);
  ASSERT_GE(note.size(), sizeof(dl_blob));
  EXPECT_EQ(address % 8, 0u);
  EXPECT_EQ(memcmp(note.data(), DL_BLOB_MAGIC, 8), 0);
  dl_blob head;
  memcpy(&head, note.data(), sizeof(head));
  EXPECT_EQ(head.blob_bytes, note.size());
  auto string = [&, note = note](dl_ref ref) {
    return std::string(reinterpret_cast<const char *>(note.data()) + ref);
  };
  EXPECT_EQ(string(head.features), target.featureList());
  EXPECT_EQ(string(head.cpu), "x86-64-v3");
  EXPECT_EQ(string(head.compiler), compilerVersion());
  auto *functions = reinterpret_cast<const dl_function_desc *>(note.data() + head.functions);
  auto *kernels = reinterpret_cast<const dl_kernel_desc *>(note.data() + functions[0].kernels);
  EXPECT_EQ(string(kernels[0].location), "tiny.dl:3"); // its folder is nobody's business
  EXPECT_EQ(string(kernels[1].location), "<library>/nn.dl:7");
}

void *loaded(const std::string &path, int mode = RTLD_LOCAL) {
  void *library = dlopen(path.c_str(), RTLD_NOW | mode);
  EXPECT_NE(library, nullptr) << dlerror();
  return library;
}

void runAll(const dl_frame *frame, dl_kernel_fn kernel, int64_t tasks, uint32_t number) {
  EXPECT_EQ(number, 0u);
  kernel(frame, 0, tasks, nullptr);
}

/// Calls `apply` of a loaded model as the runtime would.
void applyLoaded(const dl_model *model) {
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->abi_version, DL_ABI_VERSION);
  EXPECT_NE(model->runtime, nullptr);
  EXPECT_STREQ(model->blob->magic, DL_BLOB_MAGIC);
  float x[3] = {0, 1, -1}, y[3] = {};
  void *buffers[] = {x, y};
  int64_t dims[] = {3};
  dl_fault fault = {};
  dl_host host = {DL_ABI_VERSION, sizeof(dl_host), runAll};
  dl_frame frame = {&host, buffers, dims, &fault};
  model->entries[0](&frame);
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_NEAR(y[1], 2.7182817f, 1e-6);
  EXPECT_NEAR(y[2], 0.36787944f, 1e-7);
}

TEST_F(EmitTest, TwoLibrariesLoadSideBySide) {
  target = valueOf(resolveTarget("x86-64-v2")); // for whatever machine runs this test
  std::vector<void *> handles;
  for (StringRef name : {"tiny", "small"}) {
    std::string file = path(name.str() + ".so");
    ASSERT_EQ(errorOf(writeOutputFile(file, text(library(name)), true)), "(no error)");
    handles.push_back(loaded(file, RTLD_GLOBAL));
  }
  auto tiny = reinterpret_cast<dl_query_fn>(dlsym(handles[0], "tiny_dl_query"));
  auto small = reinterpret_cast<dl_query_fn>(dlsym(handles[1], "small_dl_query"));
  ASSERT_TRUE(tiny && small);
  EXPECT_EQ(dlsym(handles[0], "small_dl_query"), nullptr);
  EXPECT_EQ(dlsym(handles[0], "dlrt_runtime_api"), nullptr);
  EXPECT_NE(tiny(DL_ABI_VERSION)->runtime, small(DL_ABI_VERSION)->runtime); // each has its own
  EXPECT_EQ(tiny(DL_ABI_VERSION + 1), nullptr);
  applyLoaded(tiny(DL_ABI_VERSION));
  applyLoaded(small(DL_ABI_VERSION));
  for (void *handle : handles)
    dlclose(handle);
}

TEST_F(EmitTest, ConstantsAreAlignedInMemory) {
  target = valueOf(resolveTarget("x86-64-v2"));
  ModelDescription model = describe();
  model.constants = {std::vector<char>(100, 'x')};
  model.functions[1].buffers.push_back({DL_BUFFER_CONSTANT, 0, Size(100), 0, 0});
  SmallVector<char, 0> code = valueOf(compile(model));
  Bytes bytes = valueOf(linkSharedLibrary({text(code), "tiny_dl_query", {}}));
  EXPECT_GE(findNote(*openElf(bytes)).first.size(),
            sizeof(dl_blob) + 100); // behind the note that aligns it
  std::string file = path("constants.so");
  ASSERT_EQ(errorOf(writeOutputFile(file, text(bytes), true)), "(no error)");
  void *handle = loaded(file);
  auto query = reinterpret_cast<dl_query_fn>(dlsym(handle, "tiny_dl_query"));
  const dl_blob *blob = query(DL_ABI_VERSION)->blob;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(blob) % DL_BUFFER_ALIGNMENT, 0u);
  EXPECT_STREQ(blob->magic, DL_BLOB_MAGIC);
  dlclose(handle);
}

TEST_F(EmitTest, ObjectsAndArchivesShowOneSymbol) {
  SmallVector<char, 0> code = object();
  LinkInput input = {text(code), "tiny_dl_query", {}};
  Bytes joined = valueOf(linkObject(input));
  EXPECT_EQ(globalSymbols(*openElf(joined), /*defined=*/true),
            std::vector<std::string>{"tiny_dl_query"});
  Bytes archive = valueOf(linkArchive(input, "tiny.o"));
  auto opened = valueOf(object::Archive::create(MemoryBufferRef(text(archive), "archive")));
  std::vector<std::string> symbols;
  for (const object::Archive::Symbol &symbol : opened->symbols())
    symbols.push_back(symbol.getName().str());
  EXPECT_EQ(symbols, std::vector<std::string>{"tiny_dl_query"});
}

TEST_F(EmitTest, SameBytesEveryTime) {
  // Other heap contents and other names must not show. The library's members are compared too.
  SmallVector<char, 0> code = object();
  LinkInput input = {text(code), "tiny_dl_query", {}};
  Bytes library = valueOf(linkSharedLibrary(input)),
        archive = valueOf(linkArchive(input, "tiny.o"));
  std::vector<std::unique_ptr<char[]>> ballast;
  for (unsigned i = 0; i < 20; ++i) {
    ballast.push_back(std::make_unique<char[]>(1000 * i + 1));
    SmallVector<char, 0> again = object();
    ASSERT_TRUE(text(again) == text(code)) << "object of run " << i;
    LinkInput againInput = {text(again), "tiny_dl_query", {}};
    ASSERT_TRUE(text(valueOf(linkSharedLibrary(againInput))) == text(library))
        << "library of run " << i;
    ASSERT_TRUE(text(valueOf(linkArchive(againInput, "tiny.o"))) == text(archive))
        << "archive of run " << i;
  }
}

TEST_F(EmitTest, MissingRuntimeIsAnErrorInWords) {
  SmallVector<char, 0> code = object();
  std::string message = errorOf(linkSharedLibrary({text(code), "tiny_dl_query", "!<arch>\n"}));
  EXPECT_NE(message.find("linking failed: "), std::string::npos);
  EXPECT_NE(message.find("undefined hidden symbol: dlrt_runtime_api"), std::string::npos)
      << message;
  EXPECT_NE(
      errorOf(findSystemLibrary("libnothing.so.42")).find("the system has no 'libnothing.so.42'"),
      std::string::npos);
  // lld goes on after a failure.
  EXPECT_NE(valueOf(linkSharedLibrary({text(code), "tiny_dl_query", {}})).size(), 0u);
}

//===----------------------------------------------------------------------===//
// Headers
//===----------------------------------------------------------------------===//

TEST_F(EmitTest, HeadersCompileAndTwoModelsLinkIntoOneProgram) {
  target = valueOf(resolveTarget("x86-64-v2")); // for whatever machine runs this test
  std::string program = R"(
#include "tiny.h"
#include "small.h"
#include <math.h>
#include <stdio.h>
#ifdef __cplusplus
#define NOTHING nullptr
#else
#define NOTHING NULL
#endif
static int failed(dlrt_status status) {
  if (status)
    printf("%s\n", tiny_status_message(status));
  tiny_status_release(status);
  return status != NOTHING;
}
int main(void) {
  tiny_instance *tiny = NOTHING;
  small_instance *small = NOTHING;
  const float x[3] = {0, 1, -1};
  float y[3] = {0, 0, 0}, z[2] = {0, 0}, weight[12];
  dlrt_status status;
  if (failed(tiny_create(NOTHING, &tiny)) || failed(small_create(NOTHING, &small)))
    return 1;
  if (failed(tiny_apply(tiny, 3, x, 0.5, y)) || failed(small_apply(small, 2, x + 1, 0.5, z)))
    return 2;
  if (y[0] != 1 || fabsf(y[1] - 2.7182817f) > 1e-6f || z[0] != y[1] || z[1] != y[2])
    return 3;
  if (failed(tiny_read(tiny, tiny_variable_net_0_weight, weight, sizeof(weight))))
    return 4;
  status = tiny_read(tiny, tiny_variable_t, weight, 1);
  if (tiny_status_code(status) != DLRT_INVALID_ARGUMENT || !tiny_status_message(status)[0])
    return 5;
  tiny_status_release(status);
  tiny_release(tiny);
  small_release(small);
  tiny_release(NOTHING);
  return tiny_runtime() == small_runtime() || tiny_status_code(NOTHING) != DLRT_OK;
}
)";
  ASSERT_EQ(errorOf(writeOutputFile(path("main.c"), program)), "(no error)");
  ASSERT_EQ(errorOf(writeOutputFile(path("main.cpp"), program)), "(no error)");
  for (StringRef name : {"tiny", "small"}) {
    ModelDescription model = describe(name);
    SmallVector<char, 0> code = valueOf(compile(model));
    std::string header = emitHeader(model);
    EXPECT_EQ(header, emitHeader(model));
    EXPECT_NE(header.find("exp of x,"), std::string::npos);
    EXPECT_NE(header.find("by default 0.5"), std::string::npos);
    ASSERT_EQ(errorOf(writeOutputFile(path(name.str() + ".h"), header)), "(no error)");
    std::string query = model.querySymbol();
    LinkInput input = {text(code), query, {}};
    ASSERT_EQ(errorOf(writeOutputFile(path(name.str() + ".a"),
                                      text(valueOf(linkArchive(input, name.str() + ".o"))))),
              "(no error)");
    ASSERT_EQ(errorOf(writeOutputFile(path(name.str() + ".so"),
                                      text(valueOf(linkSharedLibrary(input))), true)),
              "(no error)");
  }
  std::string output = path("main");
  struct Case {
    StringRef compiler, standard, source, extension;
  };
  for (const Case &c : {Case{DLC_TEST_CC, "-std=c11", "main.c", ".a"},
                        Case{DLC_TEST_CC, "-std=c11", "main.c", ".so"},
                        Case{DLC_TEST_CXX, "-std=c++17", "main.cpp", ".a"}}) {
    std::string source = path(c.source), tiny = path("tiny" + c.extension.str()),
                small = path("small" + c.extension.str()),
                rpath = "-Wl,-rpath," + folder.str().str();
    ASSERT_EQ(run({c.compiler, c.standard, "-Wall", "-Wextra", "-Wcast-qual", "-pedantic",
                   "-Werror", source, "-o", output, tiny, small, rpath, "-lm", "-pthread"}),
              0)
        << c.source.str() << " " << c.extension.str();
    EXPECT_EQ(run({output}), 0) << c.source.str() << " " << c.extension.str();
  }
}

TEST_F(EmitTest, HeaderNamesNeverClash) {
  ModelDescription model = describe("double");
  FunctionDescription save = model.functions[1];
  save.name = "save"; // also the name of a function of every model
  save.doc = "ends */ the comment";
  save.arguments = {{"instance", DL_BOOL, {}, false, 0},
                    {"N", DL_BF16, {Size::dim(0).floorDiv(Size(2))}, false, 0}};
  save.results = {{"instance", DL_I64, {}, false, 0}, {"out_instance", DL_U8, {}, false, 0}};
  save.buffers.clear();
  model.functions.push_back(save);
  // One whose halves would have the name of another.
  FunctionDescription step = save, other = save;
  step.name = "step";
  step.flags = 0;
  step.arguments.push_back({"ticket", DL_F32, {}, false, 0});
  other.name = "step_submit";
  model.functions.push_back(step);
  model.functions.push_back(other);
  model.variables.push_back({"net_0.weight", "", DL_F32, DL_VARIABLE_TRAINED, {}});
  model.sortFunctions();
  std::string header = emitHeader(model);
  for (const char *name : {"double__save_(", "double__step(", "double__step_submit(",
                           "double__step_submit_(double__instance *instance, int64_t N, ",
                           "double__step_collect(double__instance *instance, uint64_t ticket, "})
    EXPECT_NE(header.find(name), std::string::npos) << name;
  ASSERT_EQ(errorOf(writeOutputFile(path("double.h"), header)), "(no error)");
  ASSERT_EQ(errorOf(writeOutputFile(path("use.c"),
                                    "#include \"double.h\"\nint x = double__variable_count;\n")),
            "(no error)");
  std::string source = path("use.c"), output = path("use.o");
  EXPECT_EQ(run({DLC_TEST_CC, "-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-c", source,
                 "-o", output}),
            0);
  EXPECT_EQ(run({DLC_TEST_CXX, "-x", "c++", "-std=c++17", "-Wall", "-Wextra", "-pedantic",
                 "-Werror", "-c", source, "-o", output}),
            0);
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

std::string contents(const std::string &path) {
  auto buffer = MemoryBuffer::getFile(path);
  return buffer ? (*buffer)->getBuffer().str() : "(none)";
}

TEST_F(EmitTest, FilesAppearWholeOrNotAtAll) {
  std::string file = path("a.so");
  EXPECT_EQ(errorOf(writeOutputFile(file, "one", true)), "(no error)");
  EXPECT_TRUE(sys::fs::can_execute(file));
  EXPECT_EQ(errorOf(writeOutputFile(file, "two")), "(no error)");
  EXPECT_EQ(contents(file), "two");
  EXPECT_EQ(errorOf(writeOutputFile("/dev/full", "three")),
            "cannot write '/dev/full': No space left on device");
  EXPECT_TRUE(sys::fs::exists("/dev/full"));
  EXPECT_EQ(errorOf(writeOutputFile("/dev/null", "three")), "(no error)");
  EXPECT_EQ(errorOf(writeOutputFile(path("none/a.so"), "x")),
            "cannot write '" + path("none/a.so") + "': No such file or directory");
  EXPECT_EQ(errorOf(writeOutputFile(folder.str(), "x")),
            "cannot write '" + folder.str().str() + "': Is a directory");
  // A link stays one, and nothing temporary stays behind.
  std::string link = path("link");
  ASSERT_FALSE(sys::fs::create_link(file, link));
  EXPECT_EQ(errorOf(writeOutputFile(link, "four")), "(no error)");
  EXPECT_TRUE(sys::fs::is_symlink_file(link));
  EXPECT_EQ(contents(file), "four");
  std::error_code code;
  unsigned count = 0;
  for (sys::fs::directory_iterator it(folder, code), end; it != end && !code; it.increment(code))
    ++count;
  EXPECT_EQ(count, 2u);
}

TEST(EmitCuda, ArchitecturesAreNamedAndTheNearestServes) {
  std::vector<std::string> warnings;
  auto warn = [&](const std::string &text) { warnings.push_back(text); };
  CudaTargets targets = valueOf(resolveCudaTargets({"sm_90", "sm_80", "sm_90"}, warn));
  EXPECT_EQ(targets.cubins, (std::vector<uint32_t>{80, 90}));
  EXPECT_EQ(targets.ptx, (std::vector<uint32_t>{80})); // which serves both, and later ones
  EXPECT_TRUE(warnings.empty());

  targets = valueOf(resolveCudaTargets({"sm_80", "sm_97"}, warn));
  EXPECT_EQ(targets.cubins, (std::vector<uint32_t>{80}));
  EXPECT_EQ(targets.ptx, (std::vector<uint32_t>{80, 90}));
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0], "architecture sm_97 is unknown; it gets the PTX of sm_90");

  for (StringRef wrong : {"80", "sm_", "sm_9x", "compute_80", "sm_35"})
    EXPECT_TRUE(errorToBool(resolveCudaTargets({wrong.str()}, warn).takeError())) << wrong.str();
}

TEST(EmitCuda, WhatPtxasReportsIsRead) {
  auto kernels = parsePtxasReport(
      "ptxas info    : 0 bytes gmem\n"
      "ptxas info    : Compiling entry function 'step_6' for 'sm_80'\n"
      "ptxas info    : Function properties for step_6\n"
      "    176 bytes stack frame, 172 bytes spill stores, 172 bytes spill loads\n"
      "ptxas info    : Used 128 registers, used 1 barriers, 176 bytes cumulative stack size, 17408 "
      "bytes smem, 384 bytes cmem[0]\n"
      "ptxas info    : Compiling entry function 'step_0' for 'sm_80'\n"
      "ptxas info    : Function properties for step_0\n"
      "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
      "ptxas info    : Used 14 registers, used 0 barriers, 368 bytes cmem[0]\n",
      80);
  ASSERT_EQ(kernels.size(), 2u);
  EXPECT_EQ(kernels[0].first, "step_6");
  EXPECT_EQ(kernels[0].second.arch, 80u);
  EXPECT_EQ(kernels[0].second.registers, 128u);
  EXPECT_EQ(kernels[0].second.shared_bytes, 17408u);
  EXPECT_EQ(kernels[0].second.local_bytes, 176u);
  EXPECT_EQ(kernels[1].first, "step_0");
  EXPECT_EQ(kernels[1].second.registers, 14u);
  EXPECT_EQ(kernels[1].second.shared_bytes, 0u);
  EXPECT_EQ(kernels[1].second.local_bytes, 0u);
}

TEST(EmitCuda, ProgramsForGpusAreInTheBlob) {
  ModelDescription model;
  model.name = "m";
  model.dims = {"N"};
  FunctionDescription function;
  function.name = "f";
  function.launchCount = 1;
  CudaFunctionDescription &cuda = function.cuda.emplace();
  cuda.buffers.resize(3);
  CudaGemmDescription gemm;
  gemm.epilogue = DL_CUDA_EPILOGUE_RELU_AUX;
  gemm.m = Size::dim(0);
  gemm.b = 1;
  gemm.d = gemm.aux = 2;
  gemm.auxLd = 128;
  cuda.gemms.push_back(gemm);
  CudaLaunchDescription launch;
  launch.kind = DL_CUDA_LAUNCH_GEMM;
  launch.when = DL_CUDA_WITH_CUBLASLT;
  launch.name = "matmul";
  cuda.launches.push_back(launch);
  launch = {};
  launch.symbol = "f_1";
  launch.name = "add";
  launch.grid[0] = Size::dim(0).ceilDiv(256);
  launch.parameters = {CudaParameter::ofBuffer(2), CudaParameter::ofFault(), CudaParameter::ofSize(Size::dim(0))};
  cuda.launches.push_back(launch);
  model.functions.push_back(function);
  model.cuda.emplace();
  model.cuda->kernels = {{"f_0", 128, 0, {}}, {"f_1", 256, 0, {{80, 32, 2048, 0}}}};
  model.cuda->images = {{DL_CUDA_PTX, 80, ".version 7.0"}};
  Blob blob = valueOf(serialize(model));
  auto at = [&](dl_ref offset) { return blob.bytes.data() + offset; };
  const auto *head = reinterpret_cast<const dl_blob *>(at(0));
  EXPECT_EQ(head->flags, uint32_t(DL_BLOB_WITHOUT_CPU));
  const auto *program = reinterpret_cast<const dl_cuda_desc *>(at(head->cuda));
  ASSERT_EQ(program->kernel_count, 2u);
  const auto *kernels = reinterpret_cast<const dl_cuda_kernel_desc *>(at(program->kernels));
  EXPECT_STREQ(at(kernels[1].symbol), "f_1");
  EXPECT_EQ(kernels[1].threads, 256u);
  EXPECT_EQ(reinterpret_cast<const dl_cuda_resources *>(at(kernels[1].resources))->registers, 32u);
  const auto *image = reinterpret_cast<const dl_cuda_image *>(at(program->images));
  EXPECT_STREQ(at(image->data), ".version 7.0");
  EXPECT_EQ(image->bytes, sizeof(".version 7.0"));
  const auto *desc = reinterpret_cast<const dl_function_desc *>(at(head->functions));
  const auto *gpu = reinterpret_cast<const dl_cuda_function_desc *>(at(desc->cuda));
  EXPECT_EQ(gpu->buffer_count, 3u);
  const auto *product = reinterpret_cast<const dl_cuda_gemm_desc *>(at(gpu->gemms));
  EXPECT_EQ(product->epilogue, uint32_t(DL_CUDA_EPILOGUE_RELU_AUX));
  EXPECT_EQ(product->bias, DL_CUDA_NO_BUFFER);
  EXPECT_EQ(reinterpret_cast<const dl_size *>(at(product->aux_ld))->code[1], 128);
  ASSERT_EQ(gpu->launch_count, 2u);
  const auto *launches = reinterpret_cast<const dl_cuda_launch_desc *>(at(gpu->launches));
  EXPECT_EQ(launches[0].when, DL_CUDA_WITH_CUBLASLT);
  EXPECT_EQ(launches[1].index, 1u); // the kernel's place in the table
  ASSERT_EQ(launches[1].parameter_count, 3u);
  const auto *parameters =
      reinterpret_cast<const dl_cuda_parameter *>(at(launches[1].parameters));
  EXPECT_EQ(parameters[0].value, 2u);
  EXPECT_EQ(parameters[1].kind, uint32_t(DL_CUDA_FAULT));
  EXPECT_EQ(reinterpret_cast<const dl_size *>(at(parameters[2].value))->code[0], DL_SIZE_DIM);

  model.functions[0].cuda->launches[1].symbol = "f_2";
  std::string message = toString(serialize(model).takeError());
  EXPECT_NE(message.find("a launch of 'f_2', which is no kernel"), std::string::npos) << message;
  model.functions[0].cuda->launches[1].symbol = "f_1";
  model.functions[0].cuda->gemms[0].a = 3;
  message = toString(serialize(model).takeError());
  EXPECT_NE(message.find("a product of buffers that are not there"), std::string::npos) << message;
}

//===--- what other compilers say, and what they write ---===//

TEST(CompilerMessages, OfGccAndClang) {
  auto messages = parseCompilerMessages("In file included from ops.cpp:1:\n"
                                        "d/common.h:10:15: error: 'one' was not declared in this scope\n"
                                        "   10 |   one / 2;\n"
                                        "ops.cpp:7:5: warning: unused\n"
                                        "ops.cpp:8: fatal error: x.h: No such file or directory\n"
                                        "ops.cpp:9:1: note: here\n");
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].file, "d/common.h");
  EXPECT_EQ(messages[0].line, 10u);
  EXPECT_EQ(messages[0].column, 15u);
  EXPECT_EQ(messages[0].text, "'one' was not declared in this scope");
  EXPECT_EQ(messages[1].line, 8u);
  EXPECT_EQ(messages[1].column, 0u);
  EXPECT_EQ(messages[1].text, "x.h: No such file or directory");
}

TEST(CompilerMessages, OfNvrtc) {
  auto messages = parseCompilerMessages("ops.cu(3): error: identifier \"zz\" is undefined\n"
                                        "    y[0] = zz + 1;\n"
                                        "           ^\n"
                                        "\n"
                                        "ops.cu(1): warning #161-D: unrecognized #pragma\n"
                                        "a(b).cu(7): catastrophic error: cannot open source file \"x.h\"\n"
                                        "2 errors detected in the compilation of \"ops.cu\".\n");
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].file, "ops.cu");
  EXPECT_EQ(messages[0].line, 3u);
  EXPECT_EQ(messages[0].column, 10u);
  EXPECT_EQ(messages[1].file, "a(b).cu");
  EXPECT_EQ(messages[1].line, 7u);
  EXPECT_EQ(messages[1].column, 0u);
}

TEST(JoinPtx, NamesAndVersions) {
  std::string ours = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry f_0()\n{\n\tret;\n}\n";
  std::string other = "// a comment: counter\n.version 9.0\n.target sm_90\n.address_size 64\n"
                      ".extern .func  (.param .b32 func_retval0) vprintf\n(\n\t.param .b64 vprintf_param_0\n)\n;\n"
                      ".global .align 4 .u32 counter = 1;\n"
                      ".extern .shared .align 16 .b8 tile[];\n"
                      ".func  (.param .b32 func_retval0) _Z6helperf(\n\t.param .b32 _Z6helperf_param_0\n)\n{\n\tret;\n}\n"
                      ".visible .entry k(\n\t.param .u64 k_param_0\n)\n{\n"
                      "\t.reg .b64 %rd<2>;\n\tmov.u64 %rd1, counter;\n\tmov.u64 %rd1, tile;\n\tcall.uni (r), _Z6helperf, (p);\n\tret;\n}\n";
  std::string joined = joinPtx(ours, {other, other}, 90);
  auto count = [&](StringRef words) { return StringRef(joined).count(words); };
  EXPECT_EQ(count(".version 9.0\n.target sm_90\n.address_size 64\n"), 1u);
  EXPECT_EQ(count(".version"), 1u);
  EXPECT_EQ(count(".extern .func  (.param .b32 func_retval0) vprintf"), 1u);
  EXPECT_EQ(count(".u32 counter__dlc0 = 1;"), 1u);
  EXPECT_EQ(count(".u32 counter__dlc1 = 1;"), 1u);
  EXPECT_EQ(count("mov.u64 %rd1, counter__dlc1;"), 1u);
  EXPECT_EQ(count("tile__dlc0"), 2u);
  EXPECT_EQ(count("_Z6helperf__dlc0"), 2u);
  EXPECT_EQ(count("func_retval0) _Z6helperf__dlc1("), 1u);
  EXPECT_EQ(count("entry k("), 2u); // two of one name are for ptxas to refuse: wrappers have names of their own
  EXPECT_EQ(count("vprintf__dlc"), 0u);
}

} // namespace
