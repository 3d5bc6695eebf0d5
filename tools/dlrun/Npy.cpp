//===- Npy.cpp - NumPy's .npy files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Npy.h"

#include <array>
#include <cstring>

namespace dlc::run {

namespace {

struct Header {
  std::string descr;
  std::optional<bool> fortranOrder;
  std::optional<std::vector<int64_t>> dims;
};

/// Reads the header, a Python dict of strings, bools and tuples of whole numbers:
/// {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class HeaderParser {
public:
  explicit HeaderParser(std::string_view text) : text(text) {}

  Expected<Header> parse() {
    Header header;
    if (!take('{'))
      return expected("'{'");
    while (!take('}')) {
      std::optional<std::string> key = string();
      if (!key)
        return expected("a key in quotes");
      if (!take(':'))
        return expected("':'");
      if (*key == "descr" && header.descr.empty()) {
        std::optional<std::string> descr = string();
        if (!descr)
          return makeError("its elements are records or of a type that is not known here");
        header.descr = *descr;
      } else if (*key == "fortran_order" && !header.fortranOrder) {
        if (word("True"))
          header.fortranOrder = true;
        else if (word("False"))
          header.fortranOrder = false;
        else
          return expected("True or False");
      } else if (*key == "shape" && !header.dims) {
        Expected<std::vector<int64_t>> dims = shape();
        if (!dims)
          return dims.error();
        header.dims = std::move(*dims);
      } else {
        return makeError("damaged header: unknown or repeated key ", quote(*key));
      }
      if (!take(',')) {
        if (!take('}'))
          return expected("',' or '}'");
        break;
      }
    }
    skipSpace();
    if (!text.empty())
      return makeError("damaged header: text follows the dictionary");
    if (header.descr.empty() || !header.fortranOrder || !header.dims)
      return makeError("damaged header: 'descr', 'fortran_order' or 'shape' is missing");
    return header;
  }

private:
  Error expected(std::string_view what) const {
    return makeError("damaged header: expected ", what, text.empty() ? " before its end" : ", got ",
                     text.empty() ? "" : quote(text.substr(0, 1)));
  }

  void skipSpace() {
    while (!text.empty() &&
           (text[0] == ' ' || text[0] == '\n' || text[0] == '\t' || text[0] == '\r'))
      text.remove_prefix(1);
  }

  bool take(char character) {
    skipSpace();
    if (text.empty() || text[0] != character)
      return false;
    text.remove_prefix(1);
    return true;
  }

  bool word(std::string_view expectedWord) {
    skipSpace();
    if (!text.starts_with(expectedWord))
      return false;
    text.remove_prefix(expectedWord.size());
    return true;
  }

  std::optional<std::string> string() {
    skipSpace();
    if (text.empty() || (text[0] != '\'' && text[0] != '"'))
      return std::nullopt;
    size_t end = text.find(text[0], 1);
    if (end == std::string_view::npos)
      return std::nullopt;
    std::string value(text.substr(1, end - 1));
    text.remove_prefix(end + 1);
    return value;
  }

  Expected<std::vector<int64_t>> shape() {
    std::vector<int64_t> dims;
    if (!take('('))
      return expected("'('");
    while (!take(')')) {
      skipSpace();
      int64_t dim = 0;
      auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), dim);
      if (code == std::errc::result_out_of_range)
        return makeError("a dimension in its shape is too large");
      if (code != std::errc() || dim < 0)
        return expected("a size");
      text.remove_prefix(static_cast<size_t>(end - text.data()));
      if (!text.empty() && text[0] == 'L') // written by Python 2
        text.remove_prefix(1);
      if (dims.size() == DLRT_MAX_RANK)
        return makeError("it has more than ", DLRT_MAX_RANK, " dimensions");
      dims.push_back(dim);
      if (!take(',')) {
        if (!take(')'))
          return expected("',' or ')'");
        break;
      }
    }
    return dims;
  }

  std::string_view text;
};

struct Code {
  std::string_view text;
  dlrt_dtype dtype;
};

} // namespace

/// NumPy's names of the element types without their byte order.
static constexpr std::array<Code, 9> codes = {{{"b1", DLRT_BOOL},
                                               {"u1", DLRT_U8},
                                               {"i1", DLRT_I8},
                                               {"i2", DLRT_I16},
                                               {"i4", DLRT_I32},
                                               {"i8", DLRT_I64},
                                               {"f2", DLRT_F16},
                                               {"f4", DLRT_F32},
                                               {"f8", DLRT_F64}}};

static void reverseBytes(std::byte *data, size_t bytes, size_t width) {
  for (size_t at = 0; at + width <= bytes; at += width)
    for (size_t low = 0, high = width - 1; low < high; ++low, --high)
      std::swap(data[at + low], data[at + high]);
}

/// Column-major to row-major.
static Buffer transposeFortran(const Buffer &from, const std::vector<int64_t> &dims, size_t width) {
  Buffer to(from.size());
  size_t rank = dims.size();
  std::array<uint64_t, DLRT_MAX_RANK> strides{}, index{};
  uint64_t stride = width;
  for (size_t i = 0; i < rank; ++i) {
    strides[i] = stride;
    stride *= static_cast<uint64_t>(dims[i]);
  }
  uint64_t source = 0;
  for (size_t at = 0; at < to.size(); at += width) {
    std::memcpy(to.data() + at, from.data() + source, width);
    for (size_t i = rank; i-- > 0;) {
      source += strides[i];
      if (++index[i] < static_cast<uint64_t>(dims[i]))
        break;
      source -= strides[i] * index[i];
      index[i] = 0;
    }
  }
  return to;
}

Expected<Array> readNpy(ByteReader &reader, uint64_t limit) {
  unsigned char start[8];
  Expected<size_t> count = reader.read(start, sizeof(start));
  if (!count)
    return count.error();
  if (*count < npyMagic.size() || std::memcmp(start, npyMagic.data(), npyMagic.size()) != 0)
    return makeError("not a .npy file");
  if (*count < sizeof(start))
    return makeError("truncated in its first ", sizeof(start), " bytes");
  if (start[6] < 1 || start[6] > 3)
    return makeError("version ", int(start[6]), '.', int(start[7]),
                     " of the .npy format; 1 to 3 are read");

  unsigned char lengthBytes[4] = {0, 0, 0, 0};
  size_t lengthSize = start[6] == 1 ? 2 : 4;
  count = reader.read(lengthBytes, lengthSize);
  if (!count)
    return count.error();
  if (*count < lengthSize)
    return makeError("truncated in its header");
  uint32_t length = lengthBytes[0] | uint32_t(lengthBytes[1]) << 8 |
                    uint32_t(lengthBytes[2]) << 16 | uint32_t(lengthBytes[3]) << 24;
  constexpr uint32_t longest = 1 << 20;
  if (length > longest)
    return makeError("damaged header: it would be ", length, " bytes long");
  std::string text(length, '\0');
  count = reader.read(text.data(), length);
  if (!count)
    return count.error();
  if (*count < length)
    return makeError("truncated in its header");

  Expected<Header> header = HeaderParser(text).parse();
  if (!header)
    return header.error();

  std::string_view descr = header->descr;
  char order = descr[0];
  const Code *found = nullptr;
  if (order == '<' || order == '>' || order == '=' || order == '|')
    for (const Code &code : codes)
      if (code.text == descr.substr(1))
        found = &code;
  // '|' says that the type has no byte order.
  if (!found || (order == '|' && bytesOf(found->dtype) > 1))
    return makeError("its elements are of NumPy's type ", quote(descr), ", which no model takes");

  Array array;
  array.dtype = found->dtype;
  array.dims = std::move(*header->dims);
  size_t width = bytesOf(array.dtype);
  std::optional<uint64_t> bytes = byteCount(array.dtype, array.dims);
  if (!bytes)
    return makeError("its shape ", typeText(array), " has more bytes than there are numbers");
  Expected<Buffer> data = readElements(reader, *bytes, limit);
  if (!data)
    return data.error();
  array.data = std::move(*data);

  if (order == '>')
    reverseBytes(array.data.data(), array.data.size(), width);
  if (*header->fortranOrder && array.dims.size() > 1)
    array.data = transposeFortran(array.data, array.dims, width);
  // A bool in memory is 0 or 1: compiled code relies on it.
  if (array.dtype == DLRT_BOOL)
    for (size_t i = 0; i < array.data.size(); ++i)
      array.data.data()[i] = std::byte(array.data.data()[i] != std::byte(0));
  return array;
}

Expected<std::string> npyHeader(dlrt_dtype dtype, const std::vector<int64_t> &dims) {
  const Code *found = nullptr;
  for (const Code &code : codes)
    if (code.dtype == dtype)
      found = &code;
  if (!found)
    return makeError("a .npy file cannot hold ", nameOf(dtype));

  std::string text = concat("{'descr': '", bytesOf(dtype) == 1 ? '|' : '<', found->text,
                            "', 'fortran_order': False, 'shape': (");
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i > 0)
      text += ' ';
    append(text, dims[i]);
    if (i + 1 < dims.size() || dims.size() == 1)
      text += ',';
  }
  text += "), }";
  // The elements begin at a multiple of 64.
  size_t used = npyMagic.size() + 2 + 2 + text.size() + 1;
  text.append((64 - used % 64) % 64, ' ');
  text += '\n';

  std::string header(npyMagic);
  header += '\x01';
  header += '\0';
  header += static_cast<char>(text.size() & 0xFF);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

Status writeNpy(const std::string &path, dlrt_dtype dtype, const std::vector<int64_t> &dims,
                const void *data, size_t bytes) {
  Expected<std::string> header = npyHeader(dtype, dims);
  if (!header)
    return makeError("cannot write ", quote(path), ": ", header.error().message);
  std::array<std::string_view, 2> parts = {
      *header, std::string_view(static_cast<const char *>(data), bytes)};
  return writeFileAtomically(path, parts, Durability::Fast);
}

} // namespace dlc::run
