// Low-rank products beside a weight: out += scale * (x @ down^T) @ up, by the adapter of each row.
//
// Bound by reading down and up once for each tile of rows that share an adapter, wherever they stand in the step: two or four
// bytes a number, rank * (k + n) of them (0.8 MB for gate and up of a 1.1B model at rank 16, a twentieth of their 4-bit
// weights); of one row also by starting the threads, so there are two rounds of them: each number of x @ down^T is one sum
// over the columns, in lanes, of rows that are normalized on the way; then each output is one sum over the rank. So a row
// comes to the same bits whatever tile it is in and whoever computes it.
// Reference: lora() in model/kernels/reference/lora.py.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "operations.h"
#include "simd.h"
#include "thread_team.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int kTileRows = 4;         // rows that share what is read of an adapter; with kTileRanks sums in registers
constexpr int kTileRanks = 4;
constexpr int kRowSums = 8;          // registers of outputs that a tile has at once: one alone would wait for each sum
constexpr int64_t kOutputs = 256;    // a thread's share of a tile's outputs
constexpr int64_t kValues = 16384;   // products worth another thread (about 2 us)

struct Tile {
    const lora_adapter* adapter;
    int64_t count;
    int64_t rows[kTileRows];
};

// Rows with one adapter, kTileRows at most; rows without one are left out. `open` [num_adapters] is the last tile of each.
int64_t find_tiles(const LoraArgs& a, Tile* tiles, Tile** open) {
    std::fill(open, open + a.num_adapters, nullptr);
    int64_t num_tiles = 0;
    for (int64_t row = 0; row < a.num_rows; ++row) {
        const int32_t number = a.row_adapters[row];
        if (number < 0 || a.adapters[number].rank == 0) continue;
        Tile*& tile = open[number];
        if (!tile || tile->count == kTileRows) {
            tile = tiles + num_tiles++;
            *tile = {a.adapters + number, 0, {}};
        }
        tile->rows[tile->count++] = row;
    }
    return num_tiles;
}

float norm_factor(const LoraArgs& a, const float* x) {
    Vec squares = zero();
    for_lanes(a.k, [&](int64_t i) { squares = fma(load(x + i), load(x + i), squares); },
              [&](int64_t i, int64_t n) { squares = fma(load_n(x + i, n), load_n(x + i, n), squares); });
    return 1.0f / std::sqrt(sum(squares) / static_cast<float>(a.k) + a.eps);
}

// products[row of the step][rank] of kRows rows x kRanks rows of down.
template <int kRows, int kRanks, bool kNorm, class Element>
void multiply_down(const LoraArgs& a, const int64_t* rows, const Element* down, float* products, int64_t stride) {
    const float* x[kRows];
    Vec factors[kRows], sums[kRows][kRanks];
    for (int row = 0; row < kRows; ++row) {
        x[row] = a.x + rows[row] * a.x_stride;
        factors[row] = kNorm ? set1(norm_factor(a, x[row])) : zero();
        for (Vec& one : sums[row]) one = zero();
    }
    const auto add = [&](auto load_float, auto load_down) {
        Vec of_x[kRows];
        for (int row = 0; row < kRows; ++row) {
            of_x[row] = load_float(x[row]);
            if (kNorm) of_x[row] = of_x[row] * factors[row] * load_float(a.norm_weight);
        }
        for (int rank = 0; rank < kRanks; ++rank) {
            const Vec of_down = load_down(down + rank * a.k);
            for (int row = 0; row < kRows; ++row) sums[row][rank] = fma(of_x[row], of_down, sums[row][rank]);
        }
    };
    for_lanes(a.k, [&](int64_t i) { add([i](const float* p) { return load(p + i); }, [i](const Element* p) { return load(p + i); }); },
              [&](int64_t i, int64_t n) {
                  add([i, n](const float* p) { return load_n(p + i, n); }, [i, n](const Element* p) { return load_n(p + i, n); });
              });
    for (int row = 0; row < kRows; ++row)
        for (int rank = 0; rank < kRanks; ++rank) products[rows[row] * stride + rank] = sum(sums[row][rank]);
}

template <int kRows, class Element>
void multiply_down_rows(const LoraArgs& a, const int64_t* rows, const Element* down, int64_t ranks, float* products,
                        int64_t stride) {
    const auto whole = a.norm_weight ? multiply_down<kRows, kTileRanks, true, Element> : multiply_down<kRows, kTileRanks, false, Element>;
    const auto single = a.norm_weight ? multiply_down<kRows, 1, true, Element> : multiply_down<kRows, 1, false, Element>;
    if (ranks == kTileRanks) return whole(a, rows, down, products, stride);
    for (int64_t rank = 0; rank < ranks; ++rank) single(a, rows, down + rank * a.k, products + rank, stride);
}

// A segment of an adapter, and what its outputs are made of.
struct Part {
    const float* products;  // [row of the step][ranks of the adapter], from the segment's first on
    int64_t stride, rank;
    int64_t count;          // outputs of the segment
    float scale;
    float* out;             // row 0, the segment's first output
    int64_t out_stride;
};

// out[first .. first + kVecs vectors - 1] += scale * products @ up, of kRows rows; the last `n` lanes if that is not 0.
template <int kRows, int kVecs, class Element>
void add_outputs(const Part& part, const int64_t* rows, const Element* up, int64_t first, int64_t n) {
    Vec totals[kRows][kVecs];
    for (auto& of_row : totals)
        for (Vec& one : of_row) one = zero();
    for (int64_t r = 0; r < part.rank; ++r) {
        const Element* const of_rank = up + r * part.count + first;
        for (int v = 0; v < kVecs; ++v) {
            const Vec of_up = n ? load_n(of_rank, n) : load(of_rank + v * kLanes);
            for (int row = 0; row < kRows; ++row)
                totals[row][v] = fma(of_up, set1(part.products[rows[row] * part.stride + r]), totals[row][v]);
        }
    }
    const Vec factor = set1(part.scale);
    for (int row = 0; row < kRows; ++row)
        for (int v = 0; v < kVecs; ++v) {
            float* const out = part.out + rows[row] * part.out_stride + first + v * kLanes;
            if (n) store_n(out, fma(totals[row][v], factor, load_n(out, n)), n);
            else store(out, fma(totals[row][v], factor, load(out)));
        }
}

template <int kRows, class Element>
void add_outputs_of(const Part& part, const int64_t* rows, const Element* up, int64_t first, int64_t last) {
    constexpr int kVecs = kRowSums / kRows;
    for (; first + kVecs * kLanes <= last; first += kVecs * kLanes) add_outputs<kRows, kVecs>(part, rows, up, first, 0);
    for (; first + kLanes <= last; first += kLanes) add_outputs<kRows, 1>(part, rows, up, first, 0);
    if (first < last) add_outputs<kRows, 1>(part, rows, up, first, last - first);
}

// f(rows as a constant), for 1 .. kTileRows.
template <class Function>
void with_count(int64_t rows, Function f) {
    switch (rows) {
        case 1: return f(std::integral_constant<int, 1>());
        case 2: return f(std::integral_constant<int, 2>());
        case 3: return f(std::integral_constant<int, 3>());
        default: return f(std::integral_constant<int, kTileRows>());
    }
}

// f(pointer to the first element of `numbers`), by dtype.
template <class Function>
void with_elements(const void* numbers, int64_t dtype, Function f) {
    if (dtype == PARLOR_F16) f(static_cast<const half_t*>(numbers));
    else if (dtype == PARLOR_BF16) f(static_cast<const bfloat_t*>(numbers));
    else f(static_cast<const float*>(numbers));
}

// f(tile, part) for every part 0 .. parts(tile) - 1 of every tile. Each tile counts as if it had the most parts.
template <class Parts, class Function>
void for_parts(const Tile* tiles, int64_t num_tiles, int64_t values, Parts parts, Function f) {
    int64_t most = 0;
    for (int64_t i = 0; i < num_tiles; ++i) most = std::max(most, parts(tiles[i]));
    team().parallel_for(num_tiles * most, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i)
            if (i % most < parts(tiles[i / most])) f(tiles[i / most], i % most);
    }, std::max<int64_t>(1, kValues / std::max<int64_t>(1, values)));
}

}  // namespace

int add_lora(const LoraArgs& a) {
    int64_t max_rank = 0;
    for (int64_t i = 0; i < a.num_adapters; ++i) max_rank = std::max(max_rank, a.adapters[i].rank);
    const size_t tile_bytes = a.num_rows * sizeof(Tile), open_bytes = a.num_adapters * sizeof(Tile*);
    char* const memory =
        static_cast<char*>(team().scratch(tile_bytes + open_bytes + a.num_rows * max_rank * sizeof(float)));
    if (!memory) return PARLOR_ERROR_MEMORY;
    Tile* const tiles = reinterpret_cast<Tile*>(memory);
    float* const products = reinterpret_cast<float*>(memory + tile_bytes + open_bytes);
    const int64_t num_tiles = find_tiles(a, tiles, reinterpret_cast<Tile**>(memory + tile_bytes));
    const auto rank_parts = [](const Tile& tile) { return (tile.adapter->rank + kTileRanks - 1) / kTileRanks; };
    for_parts(tiles, num_tiles, a.k * kTileRanks, rank_parts, [&](const Tile& tile, int64_t part) {
        const int64_t first = part * kTileRanks, ranks = std::min<int64_t>(kTileRanks, tile.adapter->rank - first);
        with_elements(tile.adapter->down, tile.adapter->dtype, [&](auto* down) {
            with_count(tile.count, [&](auto count) {
                multiply_down_rows<count>(a, tile.rows, down + first * a.k, ranks, products + first, max_rank);
            });
        });
    });
    const auto output_parts = [](const Tile& tile) {
        int64_t parts = 0;
        for (int64_t i = 0; i < tile.adapter->num_segments; ++i)
            parts += (tile.adapter->segments[i].count + kOutputs - 1) / kOutputs;
        return parts;
    };
    for_parts(tiles, num_tiles, kOutputs * max_rank, output_parts, [&](const Tile& tile, int64_t part) {
        const auto* segment = tile.adapter->segments;
        for (int64_t parts; part >= (parts = (segment->count + kOutputs - 1) / kOutputs); ++segment) part -= parts;
        const int64_t first = part * kOutputs, last = std::min(first + kOutputs, segment->count);
        const Part of{products + segment->first_rank, max_rank, segment->rank, segment->count, segment->scale,
                      a.out + segment->first, a.out_stride};
        with_elements(tile.adapter->up, tile.adapter->dtype, [&](auto* up) {
            with_count(tile.count,
                       [&](auto count) { add_outputs_of<count>(of, tile.rows, up + segment->up_start, first, last); });
        });
    });
    return PARLOR_OK;
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
