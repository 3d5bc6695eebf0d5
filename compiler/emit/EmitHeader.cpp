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
                           "load", "runtime", "synchronize", "device", "set_log", "status_code", "status_message", "status_release",
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
    // Functions keep their names; what is derived of them gives way.
    std::vector<std::string> names;
    for (const FunctionDescription &function : model.functions)
      names.push_back(function.isInit() ? "" : globals.make(prefix + "_" + function.name));
    for (auto [i, function] : enumerate(model.functions))
      if (!function.isInit())
        writeFunction(i, function, names[i]);
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
  return model && model->runtime && model->runtime->size >= sizeof(dlrt_api) ? model->runtime : NULL;
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

/* Who hears what functions print: a message for each print of a call that has gone well. NULL, the default: nobody. */
static inline void P_set_log(P_instance *instance, dlrt_log_fn log, void *user) {
  P_runtime()->instance_set_log(P_handle(instance), log, user);
}

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

  /// A function's parameters under the names that C sees.
  struct Parameters {
    std::vector<std::string> dims;               // by number of the model's dimension; "": not used
    std::vector<std::string> arguments, results; // by number of the value
    std::vector<std::string> sizes, in,
        out;                              // declared: "int64_t N", "const float *x", "float *out"
    std::vector<std::string> resultSizes; // those of `sizes` that results depend on
    std::vector<std::string> doc;
  };

  std::vector<bool> dimsOf(ArrayRef<ValueDescription> values) const {
    std::vector<bool> used(model.dims.size());
    for (const ValueDescription &value : values)
      for (const Size &dim : value.dims)
        dim.collectDims(used);
    return used;
  }

  Parameters parametersOf(const FunctionDescription &function) const {
    Parameters p;
    // Beside those that the bodies need.
    Names names({"instance", "ticket", "out_ticket", "dlc_arguments", "dlc_results"});
    std::vector<bool> ofArguments = dimsOf(function.arguments),
                      ofResults = dimsOf(function.results);
    p.dims.resize(model.dims.size());
    appendDoc(p.doc, function.doc);
    for (size_t i = 0; i < model.dims.size(); ++i)
      if (ofArguments[i] || ofResults[i]) {
        p.dims[i] = names.make(model.dims[i]);
        p.sizes.push_back("int64_t " + p.dims[i]);
        if (ofResults[i])
          p.resultSizes.push_back(p.sizes.back());
      }
    for (const ValueDescription &value : function.arguments) {
      if (value.dim && !p.dims[*value.dim].empty()) { // the size's own parameter
        p.arguments.push_back(p.dims[*value.dim]);
        continue;
      }
      p.arguments.push_back(names.make(value.name));
      bool scalar = value.dims.empty();
      p.in.push_back((scalar ? "" : "const ") + cType(value.dtype).str() + (scalar ? " " : " *") +
                     p.arguments.back());
      std::string line = p.arguments.back() + ": " + shape(value);
      if (value.hasDefault)
        line += ", by default " + number(value.defaultValue);
      p.doc.push_back(line);
    }
    for (const ValueDescription &value : function.results) {
      p.results.push_back(
          names.make("out_" + value.name == "out_out" ? "out" : "out_" + value.name));
      p.out.push_back(cType(value.dtype).str() + " *" + p.results.back());
      p.doc.push_back(p.results.back() + ": " + shape(value) + ", or NULL");
    }
    return p;
  }

  /// Opens a function: what it is given lies in these lists, one behind the other.
  void writeHead(const FunctionDescription &function, StringRef name,
                 ArrayRef<std::vector<std::string>> lists) {
    bool isConst = function.flags & DL_FUNCTION_CONST;
    os << "DLRT_MUST_USE static inline dlrt_status " << name << "(" << (isConst ? "const " : "")
       << prefix << "_instance *instance";
    for (const std::vector<std::string> &list : lists)
      for (const std::string &parameter : list)
        os << ", " << parameter;
    os << ") {\n";
  }

  /// Makes tensors of values: `array`, whose data have these names.
  void writeTensors(StringRef array, ArrayRef<ValueDescription> values, ArrayRef<std::string> names,
                    ArrayRef<std::string> dims) {
    if (values.empty())
      return;
    os << "  memset(" << array << ", 0, sizeof(" << array << "));\n";
    bool isArgument = array == "dlc_arguments";
    for (auto [i, value] : enumerate(values)) {
      std::string place = (array + "[" + Twine(i) + "]").str();
      std::string data = !isArgument          ? names[i]
                         : value.dims.empty() ? "&" + names[i]
                                              : "(void *)(uintptr_t)" + names[i];
      os << "  " << place << ".data = " << data << ";\n";
      os << "  " << place << ".dtype = DLRT_" << dtypeName(value.dtype).upper() << ";\n";
      os << "  " << place << ".rank = " << value.dims.size() << ";\n";
      std::string bytes = "sizeof(" + cType(value.dtype).str() + ")";
      for (auto [d, dim] : enumerate(value.dims)) {
        os << "  " << place << ".dims[" << d << "] = " << dim.toC(dims) << ";\n";
        bytes += (" * (size_t)" + place + ".dims[" + Twine(d) + "]").str();
      }
      os << "  " << place << ".bytes = " << bytes << ";\n";
    }
  }

  /// Declares an array of tensors where there are any values.
  void writeArray(StringRef array, ArrayRef<ValueDescription> values) {
    if (!values.empty())
      os << "  dlrt_tensor " << array << "[" << values.size() << "];\n";
  }
  static std::string listOf(StringRef array, ArrayRef<ValueDescription> values) {
    return ((values.empty() ? "NULL" : array) + ", " + Twine(values.size())).str();
  }

  void writeFunction(unsigned index, const FunctionDescription &function, StringRef name) {
    Parameters p = parametersOf(function);
    const auto &arguments = function.arguments, &results = function.results;
    const std::string runtime = "  return " + prefix + "_runtime()->",
                      handle = prefix + "_handle(instance), ";

    writeComment(os, p.doc);
    writeHead(function, name, {p.sizes, p.in, p.out});
    writeArray("dlc_arguments", arguments);
    writeArray("dlc_results", results);
    writeTensors("dlc_arguments", arguments, p.arguments, p.dims);
    writeTensors("dlc_results", results, p.results, p.dims);
    os << runtime << "call(" << handle << index << ", " << listOf("dlc_arguments", arguments)
       << ", " << listOf("dlc_results", results) << ");\n}\n\n";

    // Calls of const functions overlap by coming from several threads.
    if (function.flags & DL_FUNCTION_CONST)
      return;
    std::string submit = globals.make((name + "_submit").str()),
                collect = globals.make((name + "_collect").str());
    writeComment(
        os, {"The same in two halves, see dlrt_submit: the arguments may change when the first "
             "returns; the second waits for the results."});
    writeHead(function, submit, {p.sizes, p.in, {"uint64_t *out_ticket"}});
    writeArray("dlc_arguments", arguments);
    writeTensors("dlc_arguments", arguments, p.arguments, p.dims);
    os << runtime << "submit(" << handle << index << ", " << listOf("dlc_arguments", arguments)
       << ", " << results.size() << ", out_ticket);\n}\n";
    writeHead(function, collect, {p.resultSizes, {"uint64_t ticket"}, p.out});
    writeArray("dlc_results", results);
    writeTensors("dlc_results", results, p.results, p.dims);
    os << runtime << "collect(" << handle << "ticket, " << listOf("dlc_results", results)
       << ");\n}\n\n";
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
