// linear(): checks, rows made ready (linear_stage.cpp), row blocks shared out among the threads.
//
// A thread owns row blocks, never columns, so nothing is added across threads.
//   few rows (one tile)  every thread makes its own copy of the tile, which saves a barrier, and streams its row
//                        blocks
//   many rows            the tiles of a chunk of rows are made together; then, for a few row blocks at a time
//                        that stay in the cache, each tile is worked off
#include "linear.h"

#include <atomic>
#include <new>

#include "thread_team.h"

namespace parlor {
namespace {

constexpr int64_t kMaxRows = int64_t{1} << 24;
constexpr int64_t kChunkRows = 256;      // rows staged at a time
constexpr int64_t kCachedRowBlocks = 2;  // row blocks that all tiles go over while they are in the cache
constexpr size_t kAlignment = 64;

#if PARLOR_BUILT_ISA >= 3
constexpr int kMatrixRows = 16;
#endif

struct Input {
    const float* x;
    int64_t stride, rows;
};

// Where the parts of a staged tile lie within its memory.
struct TileLayout {
    int64_t codes, scales, offsets;  // bytes of one plane of codes, of the scales, of one plane's offsets

    TileLayout(const linear_weight& w, int64_t rows)
        : codes(aligned(rows * w.padded_k * (w.exact ? 4 : 1))),
          scales(w.exact ? 0 : aligned(rows * w.num_spans * 4)),
          offsets(w.exact ? 0 : aligned(rows * w.num_blocks * 4)) {}

    int64_t bytes() const { return 2 * codes + scales + 2 * offsets; }

    static int64_t aligned(int64_t bytes) {
        constexpr int64_t kUnit = kAlignment;
        return (bytes + kUnit - 1) / kUnit * kUnit;
    }

    Tile tile(char* memory, int rows) const {
        char* const factors = memory + 2 * codes;
        const auto floats = [&](int64_t offset) { return reinterpret_cast<float*>(factors + offset); };
        return {{memory, memory + codes}, floats(0), {floats(scales), floats(scales + offsets)}, rows};
    }
};

// Make a tile of `rows` rows in `memory`; those that x lacks are zeros.
Tile stage(const linear_weight& w, const Input& input, int rows, char* memory) {
    const TileLayout layout(w, rows);
    const Tile tile = layout.tile(memory, rows);
    const int filled = static_cast<int>(input.rows < rows ? input.rows : rows);
    if (w.exact) {
        PARLOR_PICK(stage_float)(w, input.x, input.stride, filled, rows, reinterpret_cast<float*>(memory));
    } else {
        int8_t* const plane = reinterpret_cast<int8_t*>(memory);
        int8_t* const planes[2] = {plane, plane + layout.codes};
        float* const scales = const_cast<float*>(tile.scales);
        float* const offsets[2] = {const_cast<float*>(tile.offsets[0]), const_cast<float*>(tile.offsets[1])};
        PARLOR_PICK(stage_int8)(w, input.x, input.stride, filled, rows, planes, scales, offsets);
    }
    return tile;
}

Input rows_from(const Input& input, int64_t row, int64_t rows) {
    return {input.x + row * input.stride, input.stride, input.rows - row < rows ? input.rows - row : rows};
}

Output output_from(const Output& output, int64_t row, int64_t rows) {
    return {output.out + row * output.stride, output.stride, static_cast<int>(rows), output.accumulate};
}

// This part's share of `count` row blocks.
struct Share {
    int64_t first, last;

    Share(int64_t count, int part, int num_parts)
        : first(count * part / num_parts), last(count * (part + 1) / num_parts) {}
};

// Memory of the calling thread alone, kept for the next call: unlike team().scratch() it needs no agreement.
char* own_memory(int64_t bytes) {
    struct Memory {
        char* start = nullptr;
        int64_t size = 0;

        ~Memory() { ::operator delete(start, std::align_val_t{kAlignment}); }
    };
    static thread_local Memory memory;
    if (memory.size < bytes) {
        ::operator delete(memory.start, std::align_val_t{kAlignment});
        memory.start = static_cast<char*>(::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow));
        memory.size = memory.start ? bytes : 0;
    }
    return memory.start;
}

int quantized_few(const linear_weight& w, const LinearKernels& kernels, const Input& input, const Output& output) {
    const int rows = kernels.tile_rows(static_cast<int>(input.rows));
    const int64_t bytes = TileLayout(w, rows).bytes();
    std::atomic<bool> failed{false};
    team().run([&](int part, int num_parts) {
        const Share share(row_blocks_of(w), part, num_parts);
        if (share.first == share.last) return;
        char* const memory = own_memory(bytes);
        if (!memory) {
            failed = true;
            return;
        }
        const Tile tile = stage(w, input, rows, memory);
        (w.exact ? kernels.exact_rows : kernels.int8_rows)(w, tile, share.first, share.last, output);
    });
    return failed ? PARLOR_ERROR_MEMORY : PARLOR_OK;
}

// `input` has at most kChunkRows rows. Tiles have kernels.max_rows rows each, the last one what is left.
int quantized_chunk(const linear_weight& w, const LinearKernels& kernels, const Input& input, const Output& output) {
    const int64_t tile_rows = kernels.max_rows;
    const int64_t num_tiles = (input.rows + tile_rows - 1) / tile_rows;
    const int64_t bytes = TileLayout(w, tile_rows).bytes();
    char* const memory = static_cast<char*>(team().scratch(bytes * num_tiles));
    if (!memory) return PARLOR_ERROR_MEMORY;
    const auto rows_of = [&](int64_t tile) { return rows_from(input, tile * tile_rows, tile_rows); };
    team().run([&](int part, int num_parts) {
        const Share tiles(num_tiles, part, num_parts);
        for (int64_t t = tiles.first; t < tiles.last; ++t)
            stage(w, rows_of(t), kernels.tile_rows(static_cast<int>(rows_of(t).rows)), memory + t * bytes);
        team().barrier();
        const Share share(row_blocks_of(w), part, num_parts);
        for (int64_t first = share.first; first < share.last; first += kCachedRowBlocks) {
            const int64_t last = first + kCachedRowBlocks < share.last ? first + kCachedRowBlocks : share.last;
            for (int64_t t = 0; t < num_tiles; ++t) {
                const int64_t filled = rows_of(t).rows;
                const int rows = kernels.tile_rows(static_cast<int>(filled));
                const Tile tile = TileLayout(w, rows).tile(memory + t * bytes, rows);
                (w.exact ? kernels.exact_rows : kernels.int8_rows)(w, tile, first, last,
                                                                   output_from(output, t * tile_rows, filled));
            }
        }
    });
    return PARLOR_OK;
}

#if PARLOR_BUILT_ISA >= 3
// As quantized_chunk(), with tiles of 16 rows for the matrix unit.
int matrix_chunk(const linear_weight& w, const Input& input, const Output& output) {
    const int64_t num_tiles = (input.rows + kMatrixRows - 1) / kMatrixRows;
    const TileLayout layout(w, kMatrixRows);
    const int64_t tile_bytes = layout.bytes();
    const int64_t list_bytes = TileLayout::aligned(num_tiles * static_cast<int64_t>(sizeof(Tile)));
    const int64_t panel_bytes = TileLayout::aligned(amx::panel_bytes(num_tiles));
    char* const memory =
        static_cast<char*>(team().scratch(tile_bytes * num_tiles + (list_bytes + panel_bytes) * team().size()));
    if (!memory) return PARLOR_ERROR_MEMORY;
    team().run([&](int part, int num_parts) {
        const Share tiles(num_tiles, part, num_parts);
        for (int64_t t = tiles.first; t < tiles.last; ++t)
            stage(w, rows_from(input, t * kMatrixRows, kMatrixRows), kMatrixRows, memory + t * tile_bytes);
        char* const own = memory + tile_bytes * num_tiles + (list_bytes + panel_bytes) * part;
        Tile* const list = reinterpret_cast<Tile*>(own);
        for (int64_t t = 0; t < num_tiles; ++t) list[t] = layout.tile(memory + t * tile_bytes, kMatrixRows);
        team().barrier();
        const Share share(row_blocks_of(w), part, num_parts);
        if (share.first < share.last)
            amx::int8_many(w, list, num_tiles, share.first, share.last, output, own + list_bytes);
    });
    return PARLOR_OK;
}
#endif

int quantized(const linear_weight& w, const LinearKernels& kernels, const Input& input, const Output& output) {
    if (input.rows <= kernels.max_rows) return quantized_few(w, kernels, input, output);
    for (int64_t row = 0; row < input.rows; row += kChunkRows) {
        const Input chunk = rows_from(input, row, kChunkRows);
        int error;
#if PARLOR_BUILT_ISA >= 3
        if (!w.exact && selected_isa() >= Isa::kAmx)
            error = matrix_chunk(w, chunk, output_from(output, row, chunk.rows));
        else
#endif
            error = quantized_chunk(w, kernels, chunk, output_from(output, row, chunk.rows));
        if (error) return error;
    }
    return PARLOR_OK;
}

int dense(const linear_weight& w, const LinearKernels& kernels, const Input& input, const Output& output) {
    team().run([&](int part, int num_parts) {
        const Share share(row_blocks_of(w), part, num_parts);
        const int64_t step = input.rows <= kernels.max_rows ? share.last - share.first : kCachedRowBlocks;
        for (int64_t first = share.first; first < share.last; first += step) {
            const int64_t last = first + step < share.last ? first + step : share.last;
            for (int64_t row = 0; row < input.rows; row += kernels.max_rows) {
                const Input tile = rows_from(input, row, kernels.max_rows);
                kernels.dense_rows(w, tile.x, tile.stride, first, last, output_from(output, row, tile.rows));
            }
        }
    });
    return PARLOR_OK;
}

int check(const float* x, int64_t x_stride, int64_t m, const linear_weight* w, const float* out, int64_t out_stride) {
    if (!w || !w->codes) return PARLOR_ERROR_POINTER;
    if (m < 0 || m > kMaxRows || (m > 1 && (x_stride < w->k || out_stride < w->n))) return PARLOR_ERROR_SIZE;
    return m == 0 || (x && out) ? PARLOR_OK : PARLOR_ERROR_POINTER;
}

}  // namespace
}  // namespace parlor

extern "C" int linear(const float* x, int64_t x_stride, int64_t m, const linear_weight* weight, float* out,
                      int64_t out_stride, int accumulate, void*) {
    using namespace parlor;
    if (const int error = check(x, x_stride, m, weight, out, out_stride)) return error;
    if (m == 0) return PARLOR_OK;
    const LinearKernels kernels = PARLOR_PICK(linear_kernels)();
    const Input input{x, x_stride, m};
    const Output output{out, out_stride, static_cast<int>(m), accumulate != 0};
    return (is_quantized(*weight) ? quantized : dense)(*weight, kernels, input, output);
}
