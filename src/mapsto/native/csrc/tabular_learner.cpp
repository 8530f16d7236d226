// The learner of tables behind a C interface. No function throws: a call that fails gives -1 or null, and `mapsto_online_error` says why.

#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "online/learner.h"

#if defined(_WIN32)
#define MAPSTO_API extern "C" __declspec(dllexport)
#else
#define MAPSTO_API extern "C" __attribute__((visibility("default")))
#endif

namespace {

thread_local std::string error;

struct Handle {
  online::Learner learner;
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

MAPSTO_API const char* mapsto_online_error() { return error.c_str(); }

MAPSTO_API void* mapsto_online_new(int values, int forests, int markov, double work, std::uint64_t seed) {
  void* made = nullptr;
  guarded([&] {
    made = new Handle{online::Learner({values != 0, forests != 0, markov != 0, work, seed}), {}, {}};
    return 0;
  });
  return made;
}

MAPSTO_API void mapsto_online_free(void* handle) { delete static_cast<Handle*>(handle); }

MAPSTO_API int mapsto_online_members(void* handle) { return static_cast<Handle*>(handle)->learner.members(); }

MAPSTO_API int mapsto_online_columns(void* handle) { return static_cast<Handle*>(handle)->learner.columns(); }

MAPSTO_API int mapsto_online_classes(void* handle) { return static_cast<Handle*>(handle)->learner.classes(); }

MAPSTO_API std::uint64_t mapsto_online_learnt(void* handle) { return static_cast<Handle*>(handle)->learner.learnt(); }

MAPSTO_API int mapsto_online_add_column(void* handle, int of_words) {
  return guarded([&] {
    static_cast<Handle*>(handle)->learner.add_column(of_words != 0);
    return 0;
  });
}

MAPSTO_API int mapsto_online_grow_classes(void* handle, int classes) {
  return guarded([&] {
    static_cast<Handle*>(handle)->learner.grow_classes(classes);
    return 0;
  });
}

MAPSTO_API int mapsto_online_learn(void* handle, int count, const double* x, const std::uint8_t* kinds, const std::int32_t* slots,
                                   const double* labels, double* scores, int stride, double* kept_x, double* kept_p) {
  return guarded([&] {
    static_cast<Handle*>(handle)->learner.learn(count, x, kinds, slots, labels, scores, stride, kept_x, kept_p);
    return 0;
  });
}

MAPSTO_API int mapsto_online_predict(void* handle, int count, const double* x, double* scores) {
  return guarded([&] {
    static_cast<Handle*>(handle)->learner.predict(count, x, scores);
    return 0;
  });
}

MAPSTO_API int mapsto_online_explain(void* handle, const double* x, double* p, std::int32_t* backs, double* distances) {
  return guarded([&] { return static_cast<Handle*>(handle)->learner.explain(x, p, backs, distances); });
}

MAPSTO_API double mapsto_online_past(void* handle, int back, double* x) { return static_cast<Handle*>(handle)->learner.past(back, x); }

MAPSTO_API void mapsto_online_importance(void* handle, double* sums) { static_cast<Handle*>(handle)->learner.importance(sums); }

MAPSTO_API void mapsto_online_shares(void* handle, double* shares) { static_cast<Handle*>(handle)->learner.shares(shares); }

// List the arrays of the state; they stay valid until the next call. How many there are.
MAPSTO_API int mapsto_online_list(void* handle) {
  return guarded([&] {
    auto* held = static_cast<Handle*>(handle);
    held->listed = {};
    held->learner.state(held->listed);
    return static_cast<int>(held->listed.parts.size());
  });
}

MAPSTO_API const char* mapsto_online_part(void* handle, int number, const char** kind, std::size_t* length, const void** data) {
  const online::Part& part = static_cast<Handle*>(handle)->listed.parts[number];
  *kind = part.kind;
  *length = part.length;
  *data = part.data;
  return part.name.c_str();
}

MAPSTO_API int mapsto_online_give(void* handle, const char* name, const char* kind, std::size_t length, const void* data) {
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
MAPSTO_API int mapsto_online_restore(void* handle) {
  return guarded([&] {
    auto* held = static_cast<Handle*>(handle);
    online::Restorer given;
    std::swap(given, held->given);  // whether it fits or not: what was given stays valid until here alone
    held->learner.state(given);
    return 0;
  });
}
