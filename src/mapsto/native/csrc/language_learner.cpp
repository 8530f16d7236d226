// The language model behind a C interface. No function throws: a call that fails gives -1 or null, and `mapsto_language_error` says why.

#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <utility>

#include "language/learner.h"

#if defined(_WIN32)
#define MAPSTO_API extern "C" __declspec(dllexport)
#else
#define MAPSTO_API extern "C" __attribute__((visibility("default")))
#endif

namespace {

thread_local std::string error;

struct Handle {
  language::Learner learner;
  online::Lister listed;
  online::Restorer given;
};

template <class Call>
int guarded(Call call) {
  try {
    return call();
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  return -1;
}

}  // namespace

// As `_Fields` in `nn/online/native_language.py`.
struct Given {
  double rate;
  std::uint64_t seed, memory;
  std::int32_t members, order, bits, frozen, hidden, chunk, replay, recent, rank, update;
};

MAPSTO_API const char* mapsto_language_error() { return error.c_str(); }

MAPSTO_API void* mapsto_language_new(const Given* given) {
  void* made = nullptr;
  guarded([&] {
    language::Fields fields;
    fields.members = static_cast<language::Members>(given->members);
    fields.order = given->order;
    fields.bits = given->bits;
    fields.frozen = given->frozen != 0;
    fields.network = {given->hidden, given->chunk, given->replay, given->recent, given->rank, given->rate,
                      static_cast<language::Update>(given->update), given->seed, static_cast<std::size_t>(given->memory)};
    made = new Handle{language::Learner(fields), {}, {}};
    return 0;
  });
  return made;
}

MAPSTO_API void mapsto_language_free(void* handle) { delete static_cast<Handle*>(handle); }

// Answer and learn a text in order: scores (count, 256) from before each byte, and parts (count, 2).
MAPSTO_API int mapsto_language_learn(void* handle, int count, const std::uint8_t* text, double* scores, double* parts) {
  return guarded([&] {
    language::Learner& learner = static_cast<Handle*>(handle)->learner;
    for (int event = 0; event < count; ++event) {
      learner.answer(scores + static_cast<std::size_t>(event) * language::kBytes);
      learner.learn(text[event], parts + 2 * static_cast<std::size_t>(event));
    }
    return 0;
  });
}

// Scores (256,) of the next byte.
MAPSTO_API int mapsto_language_answer(void* handle, double* scores) {
  return guarded([&] {
    static_cast<Handle*>(handle)->learner.answer(scores);
    return 0;
  });
}

MAPSTO_API void mapsto_language_shares(void* handle, double* shares) { static_cast<Handle*>(handle)->learner.shares(shares); }

MAPSTO_API std::uint64_t mapsto_language_steps(void* handle) { return static_cast<Handle*>(handle)->learner.steps(); }

// List the arrays of the state; they stay valid until the next call. How many there are.
MAPSTO_API int mapsto_language_list(void* handle) {
  return guarded([&] {
    auto* held = static_cast<Handle*>(handle);
    held->listed = {};
    held->learner.walk(held->listed);
    return static_cast<int>(held->listed.parts.size());
  });
}

MAPSTO_API const char* mapsto_language_part(void* handle, int number, const char** kind, std::size_t* length, const void** data) {
  const online::Part& part = static_cast<Handle*>(handle)->listed.parts[number];
  *kind = part.kind;
  *length = part.length;
  *data = part.data;
  return part.name.c_str();
}

MAPSTO_API int mapsto_language_give(void* handle, const char* name, const char* kind, std::size_t length, const void* data) {
  return guarded([&] {
    for (const char* known : {"<f8", "<f4", "<i4", "<u2", "<u8", "|u1"}) {
      if (std::strcmp(known, kind) == 0) {
        static_cast<Handle*>(handle)->given.given.push_back({name, known, length, data});
        return 0;
      }
    }
    error = std::string(name) + " holds values of another type";
    return -1;
  });
}

// Go on from the arrays that were given. What was there before is lost, also where it fails.
MAPSTO_API int mapsto_language_restore(void* handle) {
  return guarded([&] {
    auto* held = static_cast<Handle*>(handle);
    online::Restorer given;
    std::swap(given, held->given);
    held->learner.walk(given);
    held->learner.check();
    return 0;
  });
}
