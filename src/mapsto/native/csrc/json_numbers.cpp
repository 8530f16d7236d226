// Numbers of a flat JSON array into memory, behind a C interface.
//
// A number is given as the double nearest to it, or the float nearest to that double: what Python's own parser and NumPy come to. Whatever
// is not a plain array of so many numbers is left to the caller's own way.

#include <charconv>
#include <cmath>
#include <cstdint>
#include <version>

#if defined(_WIN32)
#define MAPSTO_API extern "C" __declspec(dllexport)
#else
#define MAPSTO_API extern "C" __attribute__((visibility("default")))
#endif

namespace {

// Powers of ten that a double holds exactly.
constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr std::uint64_t kExact = std::uint64_t{1} << 53;

bool is_digit(char letter) { return letter >= '0' && letter <= '9'; }

const char* after_blanks(const char* at, const char* end) {
  while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) ++at;
  return at;
}

// What follows the number at `at`, or null where there is none, or none that is sure to be rounded once.
const char* number(const char* at, const char* end, double& found) {
  const char* const first = at;
  const bool negative = at < end && *at == '-';
  if (negative) ++at;
  const char* const whole = at;
  std::uint64_t digits = 0;
  int exponent = 0;
  for (; at < end && is_digit(*at); ++at) digits = digits * 10 + static_cast<std::uint64_t>(*at - '0');
  std::int64_t count = at - whole;
  if (count == 0 || (count > 1 && *whole == '0')) return nullptr;
  bool integer = true;
  if (at < end && *at == '.') {
    integer = false;
    const char* const fraction = ++at;
    for (; at < end && is_digit(*at); ++at) digits = digits * 10 + static_cast<std::uint64_t>(*at - '0');
    if (at == fraction) return nullptr;
    count += at - fraction;
    exponent = -static_cast<int>(at - fraction);
  }
  if (at < end && (*at == 'e' || *at == 'E')) {
    integer = false;
    ++at;
    const bool down = at < end && *at == '-';
    if (at < end && (*at == '-' || *at == '+')) ++at;
    const char* const power = at;
    int value = 0;
    for (; at < end && is_digit(*at); ++at) value = value < 10000 ? value * 10 + (*at - '0') : value;
    if (at == power) return nullptr;
    exponent += down ? -value : value;
  }
  if (count <= 18 && digits < kExact && exponent >= -22 && exponent <= 22) {  // both exact: one rounding (Clinger 1990)
    const double value = static_cast<double>(digits);
    const double scaled = exponent < 0 ? value / kPowers[-exponent] : value * kPowers[exponent];
    found = negative ? -scaled : scaled;
    return integer && negative && digits == 0 ? nullptr : at;  // -0 is a whole number without a sign
  }
#if defined(__cpp_lib_to_chars)
  if (integer) return nullptr;  // may be more exact than a double
  const auto result = std::from_chars(first, at, found);
  return result.ec == std::errc() && result.ptr == at ? at : nullptr;
#else
  return nullptr;
#endif
}

template <class Value>
int parsed(const char* at, std::int64_t length, Value* out, std::int64_t count) {
  const char* const end = at + length;
  at = after_blanks(at, end);
  if (at == end || *at++ != '[') return -1;
  for (std::int64_t place = 0; place < count; ++place) {
    double value = 0;
    at = number(after_blanks(at, end), end, value);
    if (at == nullptr) return -1;
    out[place] = static_cast<Value>(value);
    if (!std::isfinite(out[place])) return -1;
    at = after_blanks(at, end);
    if (at == end || *at++ != (place + 1 < count ? ',' : ']')) return -1;
  }
  return after_blanks(at, end) == end ? 0 : -1;
}

}  // namespace

// 0 where the text is an array of `count` numbers, at least one, all finite; -1 otherwise, and `out` holds anything.
MAPSTO_API int mapsto_json_floats(const char* text, std::int64_t length, float* out, std::int64_t count) {
  return parsed(text, length, out, count);
}

MAPSTO_API int mapsto_json_doubles(const char* text, std::int64_t length, double* out, std::int64_t count) {
  return parsed(text, length, out, count);
}
