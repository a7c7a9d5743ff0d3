// What the C entry points ask of their arguments. For files of the plain set only.
#pragma once

#include <algorithm>
#include <cstdint>

namespace parlor {

constexpr int64_t kMaxSize = int64_t{1} << 40;  // products of two such sizes are checked where they occur

template <class... Sizes>
bool all_positive(Sizes... sizes) {
    return ((sizes > 0 && sizes < kMaxSize) && ...);
}

template <class T>
bool aligned(const T* p) {
    return p != nullptr && reinterpret_cast<uintptr_t>(p) % sizeof(T) == 0;
}

template <class T>
bool aligned_or_null(const T* p) {
    return reinterpret_cast<uintptr_t>(p) % sizeof(T) == 0;
}

template <class T>
bool all_within(const T* values, int64_t count, int64_t low, int64_t high) {
    return std::all_of(values, values + count, [&](T v) { return v >= low && v < high; });
}

}  // namespace parlor
