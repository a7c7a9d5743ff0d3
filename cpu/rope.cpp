// Rotation of queries and keys, and the write of keys and values into the cache.
//
// Bound by the cache lines it writes: a key is scattered over its transposed block, one line a dimension. Each token is
// computed alone and in the same order, whatever the batch and the number of threads.
// Reference: rope_write_kv() in model/kernels/reference/operations.py; the layouts of the blocks are in kernels.h.
#include <algorithm>
#include <cmath>

#include "attention/cache_block.h"
#include "operations.h"
#include "simd.h"
#include "thread_team.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int64_t kMaxHeadDim = 1024;      // operations.cpp refuses larger ones
constexpr int64_t kValuesPerPart = 8192;  // less work than this is not worth another thread (about 2 us)
constexpr int64_t kPartsPerThread = 4;     // of more

// Pairs of halves: (low, high) -> (low * cos - high * sin, high * cos + low * sin). `out` may be `x`.
void rotate_halves(const float* x, const float* cos, const float* sin, float* out, int64_t half) {
    for_lanes(half,
              [&](int64_t i) {
                  const Vec low = load(x + i), high = load(x + half + i), c = load(cos + i), s = load(sin + i);
                  store(out + i, low * c - high * s);
                  store(out + half + i, high * c + low * s);
              },
              [&](int64_t i, int64_t n) {
                  const Vec low = load_n(x + i, n), high = load_n(x + half + i, n);
                  const Vec c = load_n(cos + i, n), s = load_n(sin + i, n);
                  store_n(out + i, low * c - high * s, n);
                  store_n(out + half + i, high * c + low * s, n);
              });
}

void rotate_neighbours(const float* x, const float* cos, const float* sin, float* out, int64_t half) {
    for (int64_t i = 0; i < half; ++i) {
        const float low = x[2 * i], high = x[2 * i + 1];
        out[2 * i] = low * cos[i] - high * sin[i];
        out[2 * i + 1] = high * cos[i] + low * sin[i];
    }
}

// One head of one token; cos is null where nothing is rotated. `out` may be `x`.
void rotate(const float* x, const float* cos, const float* sin, bool is_interleaved, int64_t rotary_dim, int64_t head_dim,
            float* out) {
    if (!cos) rotary_dim = 0;
    if (rotary_dim > 0) (is_interleaved ? rotate_neighbours : rotate_halves)(x, cos, sin, out, rotary_dim / 2);
    if (out != x) std::copy(x + rotary_dim, x + head_dim, out + rotary_dim);
}

// out[d * stride] = x[d]: one key into its transposed block.
template <class Element>
void scatter(const float* x, Element* out, int64_t n, int64_t stride) {
    alignas(64) Element packed[kLanes];
    for_lanes(n,
              [&](int64_t i) {
                  store(packed, load(x + i));
                  for (int64_t j = 0; j < kLanes; ++j) out[(i + j) * stride] = packed[j];
              },
              [&](int64_t i, int64_t count) {
                  store(packed, load_n(x + i, count));
                  for (int64_t j = 0; j < count; ++j) out[(i + j) * stride] = packed[j];
              });
}

// The plain kinds: keys [head_dim, page_size], values [page_size, head_dim].
template <class Element>
struct PlainWriter {
    static constexpr bool kRotatesHeads = false;

    const RopeArgs& a;

    Element* block(void* cache, int64_t page, int64_t h) const {
        return static_cast<Element*>(cache) + (page * a.num_kv_heads + h) * a.page_size * a.head_dim;
    }

    void write(int64_t page, int64_t offset, int64_t h, float* key, const float* value) const {
        const int64_t d = a.head_dim;
        scatter(key, block(a.k_cache, page, h) + offset, d, a.page_size);
        if (!a.v_cache) return;
        Element* out = block(a.v_cache, page, h) + offset * d;
        for_lanes(d, [&](int64_t i) { store(out + i, load(value + i)); },
                  [&](int64_t i, int64_t n) { store_n(out + i, load_n(value + i, n), n); });
    }
};

template <int kBits>
struct QuantizedWriter {
    static constexpr bool kRotatesHeads = true;
    static constexpr int64_t kInWord = 32 / kBits;

    const RopeArgs& a;
    const CacheBlock layout{kBits, a.page_size, a.head_dim};

    uint8_t* block(void* cache, int64_t page, int64_t h) const {
        return static_cast<uint8_t*>(cache) + (page * a.num_kv_heads + h) * layout.bytes();
    }

    void write(int64_t page, int64_t offset, int64_t h, float* key, const float* value) const {
        uint8_t codes[kMaxHeadDim];
        hadamard(key, a.head_dim);
        uint8_t* const keys = block(a.k_cache, page, h);
        quantize(key, codes, layout.scales(keys) + offset);
        write_key(codes, keys + offset * 4);
        if (!a.v_cache) return;
        float rotated[kMaxHeadDim];
        std::copy_n(value, a.head_dim, rotated);
        hadamard(rotated, a.head_dim);
        uint8_t* const values = block(a.v_cache, page, h);
        quantize(rotated, codes, layout.scales(values) + offset);
        write_value(codes, values + offset / kInWord * a.head_dim * 4, offset % kInWord);
    }

    // Codes of a rotated head, and the scale of each group into scales[group * page_size].
    void quantize(const float* x, uint8_t* codes, half_t* scales) const {
        for (int64_t start = 0; start < a.head_dim; start += kCacheGroup, scales += a.page_size) {
            const int64_t end = std::min(start + kCacheGroup, a.head_dim);
            float top = 0.0f;
            for (int64_t d = start; d < end; ++d) top = std::abs(x[d]) > top ? std::abs(x[d]) : top;
            store_n(scales, set1(top / (kBits == 8 ? 127.0f : 8.0f)), 1);
            const float scale = load_n(scales, 1)[0];
            const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
            for (int64_t d = start; d < end; ++d) codes[d] = code(x[d] * inverse);
        }
    }

    static uint8_t code(float x) {
        if (kBits == 8) return static_cast<uint8_t>(static_cast<int8_t>(std::clamp(std::nearbyint(x), -127.0f, 127.0f)));
        return static_cast<uint8_t>(std::clamp(std::floor(x) + 8.0f, 0.0f, 15.0f));
    }

    // `out`: the key's word of the first dimensions.
    void write_key(const uint8_t* codes, uint8_t* out) const {
        for (int64_t d = 0; d < a.head_dim; d += kInWord, out += a.page_size * 4) {
            for (int64_t i = 0; i < 4; ++i)
                out[i] = kBits == 8 ? codes[d + i] : static_cast<uint8_t>(codes[d + 2 * i] | codes[d + 2 * i + 1] << 4);
        }
    }

    // `out`: the words that hold the value among others, whose codes stay.
    void write_value(const uint8_t* codes, uint8_t* out, int64_t index) const {
        for (int64_t d = 0; d < a.head_dim; ++d) {
            if (kBits == 8) {
                out[d * 4 + index] = codes[d];
            } else {
                uint8_t& two = out[d * 4 + index / 2];
                two = static_cast<uint8_t>(index % 2 ? (two & 0x0F) | codes[d] << 4 : (two & 0xF0) | codes[d]);
            }
        }
    }
};

// Part `part` of the call: its share of the queries, and the pages that are its own, since tokens that lie side by
// side in a page share words.
template <class Writer>
void rope_part(const RopeArgs& a, const Writer& writer, int64_t part, int64_t num_parts) {
    const int64_t d = a.head_dim, half = a.rotary_dim / 2;
    const int64_t first = a.num_tokens * part / num_parts, last = a.num_tokens * (part + 1) / num_parts;
    alignas(64) float key[kMaxHeadDim];
    for (int64_t t = 0; t < a.num_tokens; ++t) {
        float* queries = a.qkv + t * a.qkv_stride;
        const float* cos = a.cos_table ? a.cos_table + a.positions[t] * half : nullptr;
        const float* sin = a.cos_table ? a.sin_table + a.positions[t] * half : nullptr;
        for (int64_t h = 0; t >= first && t < last && h < a.num_heads; ++h) {
            rotate(queries + h * d, cos, sin, a.is_interleaved, a.rotary_dim, d, queries + h * d);
            if (a.query_scale)
                for (int64_t i = 0; i < d; ++i) queries[h * d + i] *= a.query_scale[a.positions[t]];
            if (Writer::kRotatesHeads) hadamard(queries + h * d, d);
        }
        const int64_t slot = a.slot_mapping[t], page = slot / a.page_size;
        if (slot < 0 || page % num_parts != part) continue;
        const float* keys = queries + a.num_heads * d;
        for (int64_t h = 0; h < a.num_kv_heads; ++h) {
            rotate(keys + h * d, cos, sin, a.is_interleaved, a.rotary_dim, d, key);
            writer.write(page, slot % a.page_size, h, key, keys + (a.num_kv_heads + h) * d);
        }
    }
}

template <class Writer>
void rope_with(const RopeArgs& a, const Writer& writer) {
    if (a.num_tokens * (a.num_heads + (a.v_cache ? 2 : 1) * a.num_kv_heads) * a.head_dim <= kValuesPerPart)
        return rope_part(a, writer, 0, 1);
    const int64_t num_parts = kPartsPerThread * team().size();
    team().parallel_for(num_parts, [&](int64_t begin, int64_t end, int) {
        for (int64_t part = begin; part < end; ++part) rope_part(a, writer, part, num_parts);
    });
}

}  // namespace

void rotate_rows(const RotateArgs& a) {
    const int64_t d = a.head_dim, half = a.rotary_dim / 2;
    team().parallel_for(a.num_tokens, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
            for (int64_t h = 0; h < a.num_heads; ++h) {
                float* const head = a.x + t * a.x_stride + h * d;
                rotate(head, a.cos_table + a.positions[t] * half, a.sin_table + a.positions[t] * half, a.is_interleaved,
                       a.rotary_dim, d, head);
            }
        }
    }, std::max<int64_t>(1, kValuesPerPart / (a.num_heads * d)));
}

void rope_rows(const RopeArgs& a) {
    switch (a.cache_dtype) {
        case PARLOR_F32: return rope_with(a, PlainWriter<float>{a});
        case PARLOR_F16: return rope_with(a, PlainWriter<half_t>{a});
        case PARLOR_Q8: return rope_with(a, QuantizedWriter<8>{a});
        default: return rope_with(a, QuantizedWriter<4>{a});
    }
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
