// Packing a linear layer's weight into the layout of linear.h, once at load.
//
// Bound by reading the codes, one byte each, from memory; the row blocks are shared out among the threads.
#include <cstring>

#include "groups.h"
#include "rounding.h"
#include "thread_team.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace parlor {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 30;

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Call visit(Block) for every block in order.
template <class Visit>
void for_each_block(const linear_weight& w, Visit visit) {
    const int64_t longest = is_grouped(w) ? kGroupUnit : kSpanColumns;
    for (int64_t group = 0; group < w.num_groups; ++group) {
        const int64_t begin = group * w.group_size;
        const int64_t end = begin + w.group_size < w.k ? begin + w.group_size : w.k;
        for (int64_t source = begin; source < end; source += longest) {
            const int64_t filled = end - source < longest ? end - source : longest;
            const int64_t length = is_grouped(w) ? filled : round_up(filled, kColumnUnit);
            visit(Block{static_cast<int32_t>(source), static_cast<int32_t>(filled), static_cast<int32_t>(length),
                        static_cast<int32_t>(group)});
        }
    }
}

// Call visit(Span) for every span in order.
template <class Visit>
void for_each_span(const linear_weight& w, Visit visit) {
    Span span{};
    for_each_block(w, [&](const Block& block) {
        if (span.columns + block.length > kSpanColumns) {
            visit(span);
            span = {span.last_block, span.last_block, span.first_column + span.columns, 0};
        }
        ++span.last_block;
        span.columns += block.length;
    });
    visit(span);
}

struct Sections {
    int64_t codes, scales, zeros, blocks, spans, steps, min_steps, factors, block_scales;

    int64_t sum() const {
        return codes + scales + zeros + blocks + spans + steps + min_steps + factors + block_scales;
    }
};

Sections section_bytes(const linear_weight& w) {
    const int64_t row_blocks = row_blocks_of(w), factor_bytes = row_blocks * kLanes * static_cast<int64_t>(sizeof(float));
    if (w.kind == PARLOR_LINEAR_F8) {
        const int64_t scales = w.num_groups > 1 ? row_blocks * w.num_groups * static_cast<int64_t>(sizeof(float)) : 0;
        return {row_blocks * row_block_bytes(w), 0, 0, 0, 0, 0, 0, factor_bytes, round_up(scales, 64)};
    }
    const int64_t per_group = row_blocks * kLanes * w.num_groups;
    const int64_t scale_bytes = w.scale_kind == PARLOR_SCALE_F16 ? 2 : 1;
    const int64_t zero_bytes = w.zero_kind == PARLOR_ZERO_MIN ? scale_bytes
        : w.zero_kind == PARLOR_ZERO_F16 ? 2 : w.zero_kind == PARLOR_ZERO_U8 ? 1 : 0;
    const int64_t step_bytes = round_up(row_blocks * kLanes * num_steps_of(w) * 2, 64);
    return {round_up(row_blocks * row_block_bytes(w), 64),
            round_up(per_group * scale_bytes, 64),
            round_up(per_group * zero_bytes, 64),
            round_up(w.num_blocks * static_cast<int64_t>(sizeof(Block)), 64),
            round_up(w.num_spans * static_cast<int64_t>(sizeof(Span)), 64),
            step_bytes, w.zero_kind == PARLOR_ZERO_MIN ? step_bytes : 0,
            is_grouped(w) && has_factors(w) ? factor_bytes : 0, 0};
}

// The forms of weights in small groups that kernels exist for.
int check_groups(const linear_weight& w) {
    const bool has_mins = w.zero_kind == PARLOR_ZERO_MIN;
    if (!has_mins && w.zero_kind != PARLOR_ZERO_ONE) return PARLOR_ERROR_DTYPE;
    if (w.k % (has_steps(w) ? kSharedColumns : kGroupUnit) != 0) return PARLOR_ERROR_SIZE;
    const bool is_wide = w.kind == PARLOR_LINEAR_W4;
    if (w.perm || w.zero < 0 || w.zero > (is_wide ? 1 << 14 : 255)) return PARLOR_ERROR_VALUE;
    for (const uint16_t value : w.table) {
        if (has_table(w.kind) && value > (is_wide ? 0x7FFF : 0xFF)) return PARLOR_ERROR_VALUE;
    }
    const bool is_byte = w.scale_kind == PARLOR_SCALE_E8M0 || w.scale_kind == PARLOR_SCALE_E4M3;
    if (w.scale_kind < PARLOR_SCALE_F16 || w.scale_kind > PARLOR_SCALE_E4M3) return PARLOR_ERROR_DTYPE;
    if ((is_byte && w.kind != PARLOR_LINEAR_T4) || (is_wide && w.scale_kind != PARLOR_SCALE_F16)) return PARLOR_ERROR_DTYPE;
    if (is_wide) {
        const bool is_whole = w.group_size % kGroupUnit == 0 && (w.group_size & (w.group_size - 1)) == 0;
        return has_mins ? PARLOR_ERROR_DTYPE : is_whole && w.k % w.group_size == 0 ? PARLOR_OK : PARLOR_ERROR_VALUE;
    }
    const bool is_16 = has_pairs(w.kind) || w.scale_kind == PARLOR_SCALE_E4M3;
    if (w.group_size != (is_16 ? 16 : 32) || (has_pairs(w.kind) && !has_steps(w))) return PARLOR_ERROR_VALUE;
    switch (w.kind) {
        case PARLOR_LINEAR_G2: case PARLOR_LINEAR_G4: return has_mins ? PARLOR_OK : PARLOR_ERROR_DTYPE;
        case PARLOR_LINEAR_G5: return has_mins || !has_steps(w) ? PARLOR_OK : PARLOR_ERROR_DTYPE;
        default: return has_mins ? PARLOR_ERROR_DTYPE : PARLOR_OK;
    }
}

int check(const linear_weight& w) {
    if (w.n < 1 || w.k < 1 || w.n > kMaxSize || w.k > kMaxSize) return PARLOR_ERROR_SIZE;
    if (w.kind < PARLOR_LINEAR_Q4 || w.kind > PARLOR_LINEAR_F8) return PARLOR_ERROR_DTYPE;
    if (is_grouped(w)) return w.group_size < 1 || w.group_size > w.k ? PARLOR_ERROR_SIZE : check_groups(w);
    if (w.scale_kind) return PARLOR_ERROR_VALUE;
    if (w.kind == PARLOR_LINEAR_F8) {
        if (w.group_size < 1 || w.group_size > w.k) return PARLOR_ERROR_SIZE;
        return !w.perm && (w.group_size == w.k || w.group_size % kColumnUnit == 0) ? PARLOR_OK : PARLOR_ERROR_VALUE;
    }
    if (!is_quantized(w)) return w.group_size == 0 && !w.perm ? PARLOR_OK : PARLOR_ERROR_VALUE;
    if (w.group_size < 1 || w.group_size > w.k) return PARLOR_ERROR_SIZE;
    if (w.zero_kind < PARLOR_ZERO_ONE || w.zero_kind > PARLOR_ZERO_F16) return PARLOR_ERROR_DTYPE;
    return w.zero >= 0 && w.zero <= 255 ? PARLOR_OK : PARLOR_ERROR_VALUE;
}

int check_buffer(const linear_weight& w, const void* source, const void* buffer) {
    if (!source || !buffer || reinterpret_cast<uintptr_t>(buffer) % 64) return PARLOR_ERROR_POINTER;
    return w.nbytes > 0 ? PARLOR_OK : PARLOR_ERROR_SIZE;  // else linear_plan() was not called
}

uint32_t load_bytes(const uint8_t* source, int64_t count) {
    uint32_t word = 0;
    if (count > 0) std::memcpy(&word, source, count < 4 ? count : 4);
    return word;
}

// Which rows of a weight a source has.
struct Rows {
    int64_t first, count;

    int64_t first_block() const { return first / kLanes; }
    int64_t last_block() const { return (first + count + kLanes - 1) / kLanes; }
    // The source's row of an output, or -1 if there is none.
    int64_t of(int64_t row_block, int64_t lane) const {
        const int64_t row = row_block * kLanes + lane - first;
        return row < count ? row : -1;
    }
};

// One row block: a word of four codes for each output in turn; the layout is little-endian like every machine here.
void pack_codes(const linear_weight& w, const uint8_t* codes, const Rows& rows, int64_t row_block, uint32_t* packed) {
    const Block* blocks = blocks_of(w);
    const int columns = w.kind == PARLOR_LINEAR_Q4 ? 8 : 4;
    for (int64_t b = 0; b < w.num_blocks; ++b) {
        for (int column = 0; column < blocks[b].length; column += columns) {
            const int64_t left = blocks[b].filled - column;
            for (int64_t lane = 0; lane < kLanes; ++lane) {
                const int64_t row = rows.of(row_block, lane);
                uint32_t word = 0;
                if (row >= 0) {
                    const uint8_t* source = codes + row * w.k + blocks[b].source + column;
                    word = load_bytes(source, left);
                    if (columns == 8) word |= load_bytes(source + 4, left - 4) << 4;
                }
                *packed++ = word;
            }
        }
    }
}

// [rows, groups] -> [row blocks][groups][16]
template <class T>
void pack_groups(const T* source, int64_t groups, const Rows& rows, int64_t row_block, T* packed) {
    T* target = packed + row_block * groups * kLanes;
    for (int64_t group = 0; group < groups; ++group) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            const int64_t row = rows.of(row_block, lane);
            *target++ = row >= 0 ? source[row * groups + group] : T{0};
        }
    }
}

// One row block of groups.h, four codes of an output at a time: a word of each line has them in its bytes.
void pack_units(const linear_weight& w, const uint8_t* codes, const Rows& rows, int64_t row_block, uint8_t* packed) {
    const int64_t lines = unit_lines(w.kind);
    std::memset(packed, 0, row_block_bytes(w));
    for (int64_t unit = 0; unit < w.k / kGroupUnit; ++unit, packed += lines * 64) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            const int64_t row = rows.of(row_block, lane);
            if (row < 0) continue;
            uint32_t quads[kGroupUnit / 4], words[7] = {};
            std::memcpy(quads, codes + row * w.k + unit * kGroupUnit, kGroupUnit);
            int line = 0, shift = 0;
            if (has_nibbles(w.kind)) {
                for (int q = 0; q < 8; ++q) words[line + q / 2] |= (quads[q] & 0x0F0F0F0F) << q % 2 * 4;
                line = 4, shift = 4;
            }
            if (has_pairs(w.kind)) {
                for (int q = 0; q < 8; ++q) words[line + q / 4] |= (quads[q] >> shift & 0x03030303) << q % 4 * 2;
                line += 2, shift += 2;
            }
            if (has_bits(w.kind))
                for (int q = 0; q < 8; ++q) words[line] |= (quads[q] >> shift & 0x01010101) << q;
            for (int i = 0; i < lines; ++i) std::memcpy(packed + i * 64 + lane * 4, words + i, 4);
        }
    }
}

template <class T>
void pack_values(const linear_weight& w, const T* source, int64_t row_block, int64_t pair, T* target) {
    for (int64_t column = 0; column < w.padded_k; column += pair) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            const int64_t row = row_block * kLanes + lane;
            for (int64_t i = 0; i < pair; ++i)
                *target++ = row < w.n && column + i < w.k ? source[row * w.k + column + i] : T{0};
        }
    }
}

// Where the parts of a quantized weight lie within `buffer`; writes its blocks and spans.
void place_sections(linear_weight& w, const Sections& bytes, void* buffer) {
    char* const base = static_cast<char*>(buffer);
    char* const zeros = base + bytes.codes + bytes.scales;
    char* const memory = zeros + bytes.zeros;
    char* const steps = memory + bytes.blocks + bytes.spans;
    w.codes = base;
    w.scales = reinterpret_cast<uint16_t*>(base + bytes.codes);
    w.zeros = zeros;
    w.steps = bytes.steps ? reinterpret_cast<uint16_t*>(steps) : nullptr;
    w.min_steps = bytes.min_steps ? reinterpret_cast<uint16_t*>(steps + bytes.steps) : nullptr;
    w.factors = bytes.factors ? reinterpret_cast<float*>(steps + bytes.steps + bytes.min_steps) : nullptr;
    w.block_scales = nullptr;
    Block* block = reinterpret_cast<Block*>(memory);
    Span* span = reinterpret_cast<Span*>(memory + bytes.blocks);
    w.blocks = block;
    w.spans = span;
    for_each_block(w, [&](const Block& next) { *block++ = next; });
    for_each_span(w, [&](const Span& next) { *span++ = next; });
}

void pack_quantized_rows(const linear_weight& w, const Sections& bytes, const uint8_t* codes, const uint16_t* scales,
                         const void* zeros, const Rows& rows, void* buffer) {
    char* const base = static_cast<char*>(buffer);
    uint16_t* const packed_scales = reinterpret_cast<uint16_t*>(base + bytes.codes);
    char* const packed_zeros = base + bytes.codes + bytes.scales;
    team().parallel_for(rows.last_block() - rows.first_block(), [&](int64_t begin, int64_t end, int) {
        for (int64_t i = rows.first_block() + begin; i < rows.first_block() + end; ++i) {
            pack_codes(w, codes, rows, i, reinterpret_cast<uint32_t*>(base + i * row_block_bytes(w)));
            pack_groups(scales, w.num_groups, rows, i, packed_scales);
            if (w.zero_kind == PARLOR_ZERO_U8)
                pack_groups(static_cast<const uint8_t*>(zeros), w.num_groups, rows, i,
                            reinterpret_cast<uint8_t*>(packed_zeros));
            if (w.zero_kind == PARLOR_ZERO_F16)
                pack_groups(static_cast<const uint16_t*>(zeros), w.num_groups, rows, i,
                            reinterpret_cast<uint16_t*>(packed_zeros));
        }
    });
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int linear_plan(linear_weight* weight) {
    if (!weight) return PARLOR_ERROR_POINTER;
    linear_weight& w = *weight;
    if (const int error = check(w)) return error;
    w.num_groups = w.num_blocks = w.num_spans = 0;
    w.padded_k = w.kind == PARLOR_LINEAR_BF16 ? round_up(w.k, 2) : w.k;
    if (w.kind == PARLOR_LINEAR_F8) {
        w.padded_k = round_up(w.k, kColumnUnit);
        w.num_groups = (w.k + w.group_size - 1) / w.group_size;
    }
    if (is_quantized(w)) {
        w.num_groups = (w.k + w.group_size - 1) / w.group_size;
        w.padded_k = 0;
        for_each_block(w, [&](const Block& block) { ++w.num_blocks, w.padded_k += block.length; });
        for_each_span(w, [&](const Span&) { ++w.num_spans; });
    }
    w.nbytes = section_bytes(w).sum();
    return PARLOR_OK;
}

extern "C" int linear_pack_quantized(linear_weight* weight, const uint8_t* codes, const uint16_t* scales,
                                     const void* zeros, void* buffer, void*) {
    if (!weight || !scales) return PARLOR_ERROR_POINTER;
    linear_weight& w = *weight;
    if (const int error = check(w)) return error;
    if (const int error = check_buffer(w, codes, buffer)) return error;
    if (!is_quantized(w) || is_grouped(w)) return PARLOR_ERROR_DTYPE;
    if (w.zero_kind != PARLOR_ZERO_ONE && !zeros) return PARLOR_ERROR_POINTER;
    const Sections bytes = section_bytes(w);
    place_sections(w, bytes, buffer);
    pack_quantized_rows(w, bytes, codes, scales, zeros, {0, w.n}, buffer);
    return PARLOR_OK;
}

extern "C" int linear_pack_groups(linear_weight* weight, int64_t first_row, int64_t num_rows, const uint8_t* codes,
                                  const void* scales, const void* mins, const uint16_t* steps, const uint16_t* min_steps,
                                  const float* factors, void* buffer, void*) {
    if (!weight || !scales) return PARLOR_ERROR_POINTER;
    linear_weight& w = *weight;
    if (const int error = check(w)) return error;
    if (const int error = check_buffer(w, codes, buffer)) return error;
    if (!is_quantized(w) || (!is_grouped(w) && w.zero_kind != PARLOR_ZERO_ONE)) return PARLOR_ERROR_DTYPE;
    const bool has_mins = w.zero_kind == PARLOR_ZERO_MIN;
    if ((has_mins && !mins) || (has_steps(w) && (!steps || (has_mins && !min_steps)))) return PARLOR_ERROR_POINTER;
    if (is_grouped(w) && has_factors(w) && !factors) return PARLOR_ERROR_POINTER;
    if (first_row < 0 || first_row % kLanes || num_rows < 1 || num_rows > w.n - first_row ||
        (num_rows % kLanes && first_row + num_rows != w.n))
        return PARLOR_ERROR_SIZE;

    const Sections bytes = section_bytes(w);
    const Rows rows{first_row, num_rows};
    place_sections(w, bytes, buffer);
    if (!is_grouped(w)) {
        pack_quantized_rows(w, bytes, codes, static_cast<const uint16_t*>(scales), nullptr, rows, buffer);
        return PARLOR_OK;
    }
    uint8_t* const base = static_cast<uint8_t*>(buffer);
    uint8_t* const packed_scales = base + bytes.codes;
    uint8_t* const packed_mins = packed_scales + bytes.scales;
    uint16_t* const packed_steps = reinterpret_cast<uint16_t*>(packed_mins + bytes.zeros + bytes.blocks + bytes.spans);
    uint16_t* const packed_min_steps = packed_steps + bytes.steps / 2;
    float* const packed_factors = reinterpret_cast<float*>(packed_min_steps + bytes.min_steps / 2);
    const float unit = w.scale_kind == PARLOR_SCALE_E4M3 ? kE4M3Factor : 1.0f;
    const auto pack = [&](const void* source, uint8_t* packed, int64_t i) {
        if (w.scale_kind != PARLOR_SCALE_F16)
            return pack_groups(static_cast<const uint8_t*>(source), w.num_groups, rows, i, packed);
        pack_groups(static_cast<const uint16_t*>(source), w.num_groups, rows, i, reinterpret_cast<uint16_t*>(packed));
    };
    team().parallel_for(rows.last_block() - rows.first_block(), [&](int64_t begin, int64_t end, int) {
        for (int64_t i = rows.first_block() + begin; i < rows.first_block() + end; ++i) {
            pack_units(w, codes, rows, i, base + i * row_block_bytes(w));
            pack(scales, packed_scales, i);
            if (has_mins) pack(mins, packed_mins, i);
            if (has_steps(w)) pack_groups(steps, num_steps_of(w), rows, i, packed_steps);
            if (has_steps(w) && has_mins) pack_groups(min_steps, num_steps_of(w), rows, i, packed_min_steps);
            for (int64_t lane = 0; has_factors(w) && lane < kLanes; ++lane) {
                const int64_t row = rows.of(i, lane);
                packed_factors[i * kLanes + lane] = row >= 0 ? factors[row] * unit : 0.0f;
            }
        }
    });
    return PARLOR_OK;
}

extern "C" int linear_round(const float* values, int64_t num_groups, int bits, uint8_t* codes, float* scales, void*) {
    if (num_groups < 0) return PARLOR_ERROR_SIZE;
    if (bits != 4 && bits != 8) return PARLOR_ERROR_VALUE;
    if (num_groups && (!values || !codes || !scales)) return PARLOR_ERROR_POINTER;
    team().parallel_for(num_groups, [&](int64_t begin, int64_t end, int) {
        PARLOR_PICK(round_groups)(values + begin * kRoundedGroup, end - begin, bits, codes + begin * kRoundedGroup,
                                  scales + begin);
    });
    return PARLOR_OK;
}

extern "C" int linear_pack_dense(linear_weight* weight, const void* values, void* buffer, void*) {
    if (!weight) return PARLOR_ERROR_POINTER;
    linear_weight& w = *weight;
    if (const int error = check(w)) return error;
    if (const int error = check_buffer(w, values, buffer)) return error;
    if (is_quantized(w) || w.kind == PARLOR_LINEAR_F8) return PARLOR_ERROR_DTYPE;
    w.codes = buffer;
    w.scales = nullptr;
    w.zeros = w.blocks = w.spans = nullptr;
    w.steps = w.min_steps = nullptr;
    w.factors = w.block_scales = nullptr;
    team().parallel_for(row_blocks_of(w), [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            char* const target = static_cast<char*>(buffer) + i * row_block_bytes(w);
            const int64_t pair = w.kind == PARLOR_LINEAR_BF16 ? 2 : 1;
            if (w.kind == PARLOR_LINEAR_F32)
                pack_values(w, static_cast<const float*>(values), i, pair, reinterpret_cast<float*>(target));
            else
                pack_values(w, static_cast<const uint16_t*>(values), i, pair, reinterpret_cast<uint16_t*>(target));
        }
    });
    return PARLOR_OK;
}

extern "C" int linear_pack_float8(linear_weight* weight, const uint8_t* values, const float* factors,
                                  const float* block_scales, void* buffer, void*) {
    if (!weight || !factors) return PARLOR_ERROR_POINTER;
    linear_weight& w = *weight;
    if (const int error = check(w)) return error;
    if (const int error = check_buffer(w, values, buffer)) return error;
    if (w.kind != PARLOR_LINEAR_F8) return PARLOR_ERROR_DTYPE;
    if (w.num_groups > 1 && !block_scales) return PARLOR_ERROR_POINTER;
    const Sections bytes = section_bytes(w);
    uint8_t* const base = static_cast<uint8_t*>(buffer);
    float* const packed_factors = reinterpret_cast<float*>(base + bytes.codes);
    float* const packed_scales = reinterpret_cast<float*>(base + bytes.codes + bytes.factors);
    w.codes = buffer;
    w.scales = w.steps = w.min_steps = nullptr;
    w.zeros = w.blocks = w.spans = nullptr;
    w.factors = packed_factors;
    w.block_scales = w.num_groups > 1 ? packed_scales : nullptr;
    team().parallel_for(row_blocks_of(w), [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            pack_values(w, values, i, 2, base + i * row_block_bytes(w));
            for (int64_t row = i * kLanes; row < (i + 1) * kLanes; ++row)
                packed_factors[row] = row < w.n ? factors[row] * kE4M3Factor : 0.0f;
            for (int64_t group = i * w.num_groups; w.block_scales && group < (i + 1) * w.num_groups; ++group)
                packed_scales[group] = block_scales[group];
        }
    });
    return PARLOR_OK;
}

extern "C" int advise_huge_pages(void* memory, int64_t bytes) {
    if (!memory) return PARLOR_ERROR_POINTER;
    if (bytes < 0) return PARLOR_ERROR_SIZE;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t kPage = uintptr_t{1} << 21;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kPage * kPage;
    if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice, no more
#endif
    return PARLOR_OK;
}
