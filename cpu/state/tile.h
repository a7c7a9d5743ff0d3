// Neighbouring columns of one head's state, which stay in L1 while the rows of a sequence go by.
//
// Columns of a state never meet, so how many a tile has changes no bit. A tile is dense, whatever lies between the rows
// of the state: 64 columns of rows 512 bytes apart would fall on half of L1.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd.h"
#include "state.h"

namespace parlor {
namespace PARLOR_ISA_NS {

// Of a tile's row: sums and products lie in registers, eight sums, so that none waits for the one before it, and each
// factor, read once, serves four vectors. On AVX2 this is 1.3 to 1.6 times as fast as two vectors.
constexpr int kMaxVectors = 4;
constexpr int64_t kTileFloats = 8192;  // 32 KB: where L1 has no more, the second-level cache keeps up

template <int kVectors>
struct Tile {
    static constexpr int64_t kColumns = kVectors * kLanes;

    alignas(64) float values[kTileFloats];
    const int64_t depth, count;  // rows; columns, the rest are zeros

    Tile(int64_t depth_, int64_t count_) : depth(depth_), count(count_) {}

    float* row(int64_t i) { return values + i * kColumns; }

    void read(const float* state, int64_t stride) {
        for (int64_t i = 0; i < depth; ++i) read_row(state + i * stride, row(i));
    }
    void clear() { std::fill_n(values, depth * kColumns, 0.0f); }
    void write(float* state, int64_t stride) {
        for (int64_t i = 0; i < depth; ++i) std::copy_n(row(i), count, state + i * stride);
    }

    // What a row of the tile is multiplied with or added to: `count` numbers, then zeros.
    void load_columns(const float* from, Vec (&to)[kVectors]) const {
        for (int v = 0; v < kVectors; ++v) {
            const int64_t left = count - v * kLanes;
            to[v] = left >= kLanes ? load(from + v * kLanes) : left > 0 ? load_n(from + v * kLanes, left) : zero();
        }
    }
    void store_columns(float* to, const Vec (&from)[kVectors]) const {
        for (int v = 0; v < kVectors; ++v) {
            const int64_t left = count - v * kLanes;
            if (left >= kLanes) store(to + v * kLanes, from[v]);
            else if (left > 0) store_n(to + v * kLanes, from[v], left);
        }
    }

  private:
    void read_row(const float* from, float* to) const {
        Vec columns[kVectors];
        load_columns(from, columns);
        for (int v = 0; v < kVectors; ++v) store(to + v * kLanes, columns[v]);
    }
};

// visit(tile, first column) for each tile of a state of so many rows and columns.
template <class Visit>
void for_each_tile(int64_t depth, int64_t width, Visit visit) {
    const int64_t most = std::clamp<int64_t>(kTileFloats / (depth * kLanes), 1, kMaxVectors);
    for (int64_t first = 0; first < width;) {
        const int64_t vectors = std::min(most, (width - first + kLanes - 1) / kLanes);
        const int64_t count = std::min(vectors * kLanes, width - first);
        if (vectors == 1) visit(Tile<1>(depth, count), first);
        else if (vectors == 2) visit(Tile<2>(depth, count), first);
        else if (vectors == 3) visit(Tile<3>(depth, count), first);
        else visit(Tile<kMaxVectors>(depth, count), first);
        first += count;
    }
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
