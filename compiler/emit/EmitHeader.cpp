//===- EmitHeader.cpp - a C header typed for one model -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Everything is `static inline` over the table of functions that the artefact carries: a program
// includes the header, links the artefact, and needs nothing else.
//
//===----------------------------------------------------------------------===//

#include "EmitHeader.h"
#include "Embedded.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/raw_ostream.h"
#include <charconv>

using namespace llvm;

namespace dlc {

namespace {

// Of C11 and C++20, and what the included headers may define as macros.
constexpr StringLiteral reservedWords[] = {
    "alignas",     "alignof",      "and",       "and_eq",
    "asm",         "auto",         "bitand",    "bitor",
    "bool",        "break",        "case",      "catch",
    "char",        "char8_t",      "char16_t",  "char32_t",
    "class",       "co_await",     "co_return", "co_yield",
    "compl",       "concept",      "const",     "const_cast",
    "consteval",   "constexpr",    "constinit", "continue",
    "decltype",    "default",      "delete",    "do",
    "double",      "dynamic_cast", "else",      "enum",
    "explicit",    "export",       "extern",    "false",
    "float",       "for",          "friend",    "goto",
    "if",          "inline",       "int",       "linux",
    "long",        "mutable",      "namespace", "new",
    "noexcept",    "not",          "not_eq",    "nullptr",
    "operator",    "or",           "or_eq",     "private",
    "protected",   "public",       "register",  "reinterpret_cast",
    "requires",    "restrict",     "return",    "short",
    "signed",      "sizeof",       "static",    "static_assert",
    "static_cast", "struct",       "switch",    "template",
    "this",        "thread_local", "throw",     "true",
    "try",         "typedef",      "typeid",    "typename",
    "typeof",      "union",        "unix",      "unsigned",
    "using",       "virtual",      "void",      "volatile",
    "wchar_t",     "while",        "xor",       "xor_eq",
    "NULL",        "errno",        "INFINITY",  "NAN",
    "I",           "size_t",       "main"};

/// Gives every thing of one scope a name that C and C++ take, as near to its own as can be.
class Names {
public:
  explicit Names(std::initializer_list<StringRef> taken = {}) {
    for (StringRef name : taken)
      used.insert(name);
  }

  std::string make(StringRef wanted) {
    std::string name;
    for (char c : wanted)
      name += isAlnum(c) || c == '_' ? c : '_';
    if (name.empty() || isDigit(name.front()))
      name = "_" + name;
    if (is_contained(reservedWords, name) || used.contains(name)) {
      std::string base = name;
      name += "_";
      for (unsigned number = 2; used.contains(name); ++number)
        name = base + "_" + std::to_string(number);
    }
    used.insert(name);
    return name;
  }

private:
  StringSet<> used;
};

StringRef cType(dl_dtype dtype) {
  switch (dtype) {
  case DL_BOOL:
    return "bool";
  case DL_U8:
    return "uint8_t";
  case DL_I8:
    return "int8_t";
  case DL_I16:
    return "int16_t";
  case DL_I32:
    return "int32_t";
  case DL_I64:
    return "int64_t";
  case DL_F16:
  case DL_BF16:
    return "uint16_t"; // the bits: C has no such type
  case DL_F32:
    return "float";
  case DL_F64:
    return "double";
  case DL_DTYPE_COUNT:
    break;
  }
  llvm_unreachable("unknown dtype");
}

std::string upper(StringRef name) { return name.upper(); }

/// A string literal of C.
std::string quoted(StringRef text) {
  std::string result = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\')
      result += '\\';
    if (c == '\n')
      result += "\\n";
    else
      result += c;
  }
  return result + "\"";
}

/// As the lines of a comment that nothing in the text can end.
void writeComment(raw_ostream &os, ArrayRef<std::string> lines) {
  if (lines.empty())
    return;
  for (auto [i, line] : enumerate(lines)) {
    std::string safe = line;
    for (size_t at; (at = safe.find("*/")) != std::string::npos;)
      safe.replace(at, 2, "* /");
    for (size_t at; (at = safe.find("/*")) != std::string::npos;)
      safe.replace(at, 2, "/ *");
    os << (i == 0 ? "/* " : " * ") << StringRef(safe).rtrim()
       << (i + 1 == lines.size() ? " */\n" : "\n");
  }
}

void appendDoc(std::vector<std::string> &lines, StringRef doc) {
  SmallVector<StringRef> parts;
  doc.trim().split(parts, '\n');
  for (StringRef part : parts)
    if (parts.size() > 1 || !part.trim().empty())
      lines.push_back(part.trim().str());
}

std::string number(double value) {
  char text[64];
  auto end = std::to_chars(text, text + sizeof(text), value);
  return std::string(text, end.ptr);
}

class HeaderWriter {
public:
  HeaderWriter(const ModelDescription &model, raw_ostream &os) : model(model), os(os), globals() {
    Names names;
    prefix = names.make(model.name);
    // Functions of every model; a function of this model that has the same name gets an underscore.
    for (StringRef name : {"create", "release", "handle", "initialize", "read", "write", "save",
                           "load", "runtime", "synchronize", "device", "status_code", "status_message", "status_release",
                           "dl_query", "variable", "variable_count", "instance"})
      globals.make((prefix + "_" + name).str());
  }

  void write() {
    std::vector<std::string> lines = {prefix + ".h - model '" + model.name + "', written by " +
                                      model.compiler};
    appendDoc(lines, model.doc);
    lines.insert(lines.end(), {"",
                               "The functions of the model are at the end; first come the "
                               "runtime's declarations, the same for all models.",
                               "", "  " + prefix + "_instance *instance;",
                               "  dlrt_status status = " + prefix + "_create(NULL, &instance);",
                               "  if (status) ... " + prefix + "_status_message(status) ... " +
                                   prefix + "_status_release(status);",
                               "  ...", "  " + prefix + "_release(instance);"});
    writeComment(os, lines);
    std::string guard = "DLC_MODEL_" + upper(prefix) + "_H";
    os << "#ifndef " << guard << "\n#define " << guard << "\n\n"
       << embeddedRuntimeHeader() << "\n"
       << embeddedAbiHeader() << "\n"
       << "#include <stdbool.h>\n#include <string.h>\n\n"
       << "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n";
    writeCommon();
    writeVariables();
    for (auto [i, function] : enumerate(model.functions))
      if (!function.isInit())
        writeFunction(i, function);
    os << "#ifdef __cplusplus\n}\n#endif\n#endif\n";
  }

private:
  /// What every model has: P stands for its name.
  void writeCommon() {
    static constexpr StringLiteral text =
        R"C(/* The model's answer to "do you speak version v"; the one symbol of the artefact. */
const dl_model *@query@(uint32_t abi_version);

/* An instance: variables, workspace and threads of its own. One thread at a time may use it; functions that take a const instance may run on
 * many threads at once while no other does. */
typedef struct P_instance P_instance;

/* The table of the runtime in the artefact; NULL where header and artefact are of different versions of dlc. */
static inline const dlrt_api *P_runtime(void) {
  const dl_model *model = @query@(DL_ABI_VERSION);
  return model ? model->runtime : NULL;
}

/* The instance as the runtime's own functions take it (dlrt_call and others, for a program that links the runtime too). */
static inline dlrt_instance *P_handle(const P_instance *instance) { return (dlrt_instance *)(uintptr_t)instance; }

/* What a call returned: code, words (they live until the release), release. NULL is success. */
static inline dlrt_code P_status_code(dlrt_status status) {
  const dlrt_api *runtime = P_runtime();
  return !status ? DLRT_OK : runtime ? runtime->status_code(status) : DLRT_INCOMPATIBLE;
}
static inline const char *P_status_message(dlrt_status status) {
  const dlrt_api *runtime = P_runtime();
  return !status ? "" : runtime ? runtime->status_message(status) : @mismatch@;
}
static inline void P_status_release(dlrt_status status) {
  const dlrt_api *runtime = P_runtime();
  if (runtime)
    runtime->status_release(status);
}

/* Makes an instance; its variables have the initial values of the seed in the options. NULL options: defaults (seed 0, as many threads
 * as the process may use, on a GPU where the model has a program for it and one is there). */
DLRT_MUST_USE static inline dlrt_status P_create(const dlrt_options *options, P_instance **out_instance) {
  static const char mismatch = 0; /* stands for the one status that no runtime is there to make */
  const dlrt_api *runtime = P_runtime();
  dlrt_model *model = NULL;
  dlrt_instance *instance = NULL;
  dlrt_status status;
  *out_instance = NULL;
  if (!runtime)
    return (dlrt_status)(uintptr_t)&mismatch;
  status = runtime->model_attach(@query@(DL_ABI_VERSION), &model);
  if (status)
    return status;
  status = runtime->instance_create(model, options, &instance);
  runtime->model_release(model); /* lives on until the instance is released */
  *out_instance = (P_instance *)(uintptr_t)instance;
  return status;
}

/* NULL does nothing. */
static inline void P_release(P_instance *instance) {
  if (instance)
    P_runtime()->instance_release(P_handle(instance));
}

/* What the instance runs on, and why: "cuda:0 (NVIDIA ...)", "cpu: no driver: ...". */
static inline const char *P_device(const P_instance *instance) { return P_runtime()->instance_device(P_handle(instance)); }

/* Waits until a GPU has done all that was called, and tells whether it went well: calls that ask for no results may return before. */
DLRT_MUST_USE static inline dlrt_status P_synchronize(P_instance *instance) {
  return P_runtime()->instance_synchronize(P_handle(instance));
}

/* Sets every variable to its initial value for a seed. */
DLRT_MUST_USE static inline dlrt_status P_initialize(P_instance *instance, uint64_t seed) {
  return P_runtime()->instance_initialize(P_handle(instance), seed);
}

/* Checkpoints: safetensors files. A failed save leaves the old file, a failed load the variables as they were. */
DLRT_MUST_USE static inline dlrt_status P_save(const P_instance *instance, const char *path) {
  return P_runtime()->instance_save(P_handle(instance), path);
}
DLRT_MUST_USE static inline dlrt_status P_load(P_instance *instance, const char *path) {
  return P_runtime()->instance_load(P_handle(instance), path);
}

)C";
    writeTemplate(text);
  }

  void writeTemplate(StringRef text) {
    // "P" alone, or before an underscore, is the model's name.
    for (size_t i = 0; i < text.size(); ++i) {
      if (text.substr(i).consume_front("@query@")) {
        os << model.querySymbol();
        i += StringRef("@query@").size() - 1;
      } else if (text.substr(i).starts_with("@mismatch@")) {
        os << quoted("the header of model '" + model.name +
                     "' and its library were made by different versions of dlc");
        i += StringRef("@mismatch@").size() - 1;
      } else if (text[i] == 'P' && (i == 0 || !(isAlnum(text[i - 1]) || text[i - 1] == '_')) &&
                 (i + 1 == text.size() || !isAlnum(text[i + 1]))) {
        os << prefix;
      } else {
        os << text[i];
      }
    }
  }

  void writeVariables() {
    if (model.variables.empty())
      return;
    Names names;
    os << "/* Variables, for " << prefix << "_read and " << prefix << "_write. */\ntypedef enum "
       << prefix << "_variable {\n";
    for (auto [i, variable] : enumerate(model.variables)) {
      std::string name = prefix + "_variable_" + names.make(variable.name);
      os << "  " << globals.make(name) << " = " << i << ", ";
      std::vector<std::string> lines = {variable.name + ": " + dtypeName(variable.dtype).str()};
      if (!variable.dims.empty()) {
        lines[0] += "[";
        for (auto [k, dim] : enumerate(variable.dims))
          lines[0] += (k ? ", " : "") + std::to_string(dim);
        lines[0] += "]";
      }
      SmallVector<StringRef> docs;
      StringRef(variable.doc).split(docs, '\n', -1, false);
      for (StringRef doc : docs)
        lines[0] += (&doc == docs.begin() ? "; " : " ") + doc.trim().str();
      writeComment(os, lines);
    }
    os << "  " << prefix << "_variable_count = " << model.variables.size() << "\n} " << prefix
       << "_variable;\n\n";
    static constexpr StringLiteral text =
        R"C(/* Reads or writes a whole variable; bytes must be its size. */
DLRT_MUST_USE static inline dlrt_status P_read(const P_instance *instance, P_variable variable, void *data, size_t bytes) {
  return P_runtime()->variable_read(P_handle(instance), (uint32_t)variable, data, bytes);
}
DLRT_MUST_USE static inline dlrt_status P_write(P_instance *instance, P_variable variable, const void *data, size_t bytes) {
  return P_runtime()->variable_write(P_handle(instance), (uint32_t)variable, data, bytes);
}

)C";
    writeTemplate(text);
  }

  std::string shape(const ValueDescription &value) const {
    std::string text = dtypeName(value.dtype).str();
    if (value.dims.empty())
      return text;
    text += "[";
    for (auto [i, dim] : enumerate(value.dims)) {
      std::string size = dim.toC(model.dims);
      StringRef inner(size); // a sum needs no parentheses of its own here
      if (inner.consume_front("(") && inner.consume_back(")") &&
          inner.find_first_of("()") == StringRef::npos)
        size = inner.str();
      text += (i ? ", " : "") + size;
    }
    return text + "]";
  }

  void writeFunction(unsigned index, const FunctionDescription &function) {
    std::string name = globals.make(prefix + "_" + function.name);
    bool isConst = function.flags & DL_FUNCTION_CONST;

    std::vector<bool> usedDims(model.dims.size());
    for (const auto *values : {&function.arguments, &function.results})
      for (const ValueDescription &value : *values)
        for (const Size &dim : value.dims)
          dim.collectDims(usedDims);

    // Names of the parameters, beside those that the body needs.
    Names names({"instance", "dlc_arguments", "dlc_results"});
    std::vector<std::string> dims(model.dims.size());
    std::vector<std::string> parameters = {(isConst ? "const " : "") + prefix +
                                           "_instance *instance"};
    std::vector<std::string> lines;
    appendDoc(lines, function.doc);
    for (auto [i, used] : enumerate(usedDims))
      if (used) {
        dims[i] = names.make(model.dims[i]);
        parameters.push_back("int64_t " + dims[i]);
      }
    std::vector<std::string> arguments, results;
    for (const ValueDescription &value : function.arguments) {
      if (value.dim && !dims[*value.dim].empty()) { // the size's own parameter
        arguments.push_back(dims[*value.dim]);
        continue;
      }
      arguments.push_back(names.make(value.name));
      bool scalar = value.dims.empty();
      parameters.push_back((scalar ? "" : "const ") + cType(value.dtype).str() +
                           (scalar ? " " : " *") + arguments.back());
      std::string line = arguments.back() + ": " + shape(value);
      if (value.hasDefault)
        line += ", by default " + number(value.defaultValue);
      lines.push_back(line);
    }
    for (const ValueDescription &value : function.results) {
      results.push_back(names.make("out_" + value.name == "out_out" ? "out" : "out_" + value.name));
      parameters.push_back(cType(value.dtype).str() + " *" + results.back());
      lines.push_back(results.back() + ": " + shape(value) + ", or NULL");
    }
    writeComment(os, lines);

    os << "DLRT_MUST_USE static inline dlrt_status " << name << "(";
    interleave(parameters, os, ", ");
    os << ") {\n";
    auto writeTensor = [&](StringRef place, const ValueDescription &value, StringRef data) {
      os << "  " << place << ".data = " << data << ";\n";
      os << "  " << place << ".dtype = DLRT_" << dtypeName(value.dtype).upper() << ";\n";
      os << "  " << place << ".rank = " << value.dims.size() << ";\n";
      std::string bytes = "sizeof(" + cType(value.dtype).str() + ")";
      for (auto [i, dim] : enumerate(value.dims)) {
        os << "  " << place << ".dims[" << i << "] = " << dim.toC(dims) << ";\n";
        bytes += (" * (size_t)" + place + ".dims[" + Twine(i) + "]").str();
      }
      os << "  " << place << ".bytes = " << bytes << ";\n";
    };
    if (!arguments.empty())
      os << "  dlrt_tensor dlc_arguments[" << arguments.size() << "];\n";
    if (!results.empty())
      os << "  dlrt_tensor dlc_results[" << results.size() << "];\n";
    if (!arguments.empty())
      os << "  memset(dlc_arguments, 0, sizeof(dlc_arguments));\n";
    if (!results.empty())
      os << "  memset(dlc_results, 0, sizeof(dlc_results));\n";
    for (auto [i, value] : enumerate(function.arguments))
      writeTensor(("dlc_arguments[" + Twine(i) + "]").str(), value,
                  value.dims.empty() ? "&" + arguments[i] : "(void *)(uintptr_t)" + arguments[i]);
    for (auto [i, value] : enumerate(function.results))
      writeTensor(("dlc_results[" + Twine(i) + "]").str(), value, results[i]);
    os << "  return " << prefix << "_runtime()->call(" << prefix << "_handle(instance), " << index
       << ", " << (arguments.empty() ? "NULL" : "dlc_arguments") << ", " << arguments.size() << ", "
       << (results.empty() ? "NULL" : "dlc_results") << ", " << results.size() << ");\n}\n\n";
  }

  const ModelDescription &model;
  raw_ostream &os;
  Names globals;
  std::string prefix;
};

} // namespace

std::string emitHeader(const ModelDescription &model) {
  std::string text;
  raw_string_ostream os(text);
  HeaderWriter(model, os).write();
  return text;
}

} // namespace dlc
