// State as named flat arrays: each member names its parts once, and they are listed, copied out and copied in by it.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace online {

// What an array holds, as NumPy writes it.
template <class T>
constexpr const char* kind_of() {
  if constexpr (std::is_same_v<T, double>) return "<f8";
  else if constexpr (std::is_same_v<T, float>) return "<f4";
  else if constexpr (std::is_same_v<T, std::int32_t>) return "<i4";
  else if constexpr (std::is_same_v<T, std::uint16_t>) return "<u2";
  else if constexpr (std::is_same_v<T, std::uint64_t>) return "<u8";
  else return "|u1";
}

struct Part {
  std::string name;
  const char* kind;
  std::size_t length;  // in values
  const void* data;
};

// Lists the parts.
struct Lister {
  static constexpr bool restores = false;
  std::vector<Part> parts;
  std::string prefix;

  template <class T>
  void operator()(const char* name, std::vector<T>& values) {
    if constexpr (sizeof(T) == 16) {  // nodes, as bytes
      parts.push_back({prefix + name, "|u1", values.size() * sizeof(T), values.data()});
    } else {
      parts.push_back({prefix + name, kind_of<T>(), values.size(), values.data()});
    }
  }
  template <class T>
  void scalar(const char* name, T& value) {
    parts.push_back({prefix + name, kind_of<T>(), 1, &value});
  }
};

// Puts in what was given by name.
struct Restorer {
  static constexpr bool restores = true;
  std::vector<Part> given;
  std::string prefix;

  const Part& find(const char* name, const char* kind) const {
    const std::string wanted = prefix + name;
    for (const Part& part : given) {
      if (part.name == wanted) {
        if (std::strcmp(part.kind, kind) != 0) throw std::invalid_argument(wanted + " holds values of another type");
        return part;
      }
    }
    throw std::invalid_argument(wanted + " is missing");
  }
  template <class T>
  void operator()(const char* name, std::vector<T>& values) {
    const Part& part = find(name, sizeof(T) == 16 ? "|u1" : kind_of<T>());
    const std::size_t bytes = part.length * (sizeof(T) == 16 ? 1 : sizeof(T));
    if (bytes % sizeof(T) != 0) throw std::invalid_argument(part.name + " ends in the middle of a node");
    values.resize(bytes / sizeof(T));
    if (bytes) std::memcpy(values.data(), part.data, bytes);
  }
  template <class T>
  void scalar(const char* name, T& value) {
    const Part& part = find(name, kind_of<T>());
    if (part.length != 1) throw std::invalid_argument(part.name + " is not one value");
    std::memcpy(&value, part.data, sizeof(T));
  }
};

inline void require(bool fits, const char* what) {
  if (!fits) throw std::invalid_argument(what);
}

template <class T>
void require_finite(const std::vector<T>& values, const char* what) {
  for (const T value : values) require(value - value == T(0), what);
}

}  // namespace online
