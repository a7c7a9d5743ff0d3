// AMX's tile registers and the intrinsics of cpu/ that use them. Whatever the processor answers with an exception
// (#GP, #UD) ends the program with a sentence. Intel's Software Developer's Manual, volume 1, chapter 18.
#pragma once

namespace emulated {

constexpr int kTiles = 8, kMaxTileRows = 16, kMaxTileBytes = 64;

// One thread's tiles. A tile that is not configured has no rows.
struct Tiles {
    bool are_configured;
    int rows[kTiles], row_bytes[kTiles];
    uint8_t data[kTiles][kMaxTileRows][kMaxTileBytes];
};
inline thread_local Tiles tiles;

inline void check_tile(int tile) {
    if (!tiles.are_configured) fail("a tile is used before the tiles are configured; tile", tile);
    if (tile < 0 || tile >= kTiles || tiles.rows[tile] == 0) fail("a tile is used that is not configured; tile", tile);
}

// Whether `sums` += a times b is possible, row k of b holding what row k of a's 4-byte units is multiplied by.
inline void check_product(int sums, int a, int b) {
    check_tile(sums), check_tile(a), check_tile(b);
    if (sums == a || sums == b || a == b) fail("a product needs three different tiles; the sums are tile", sums);
    if (tiles.row_bytes[a] % 4 || tiles.row_bytes[b] % 4) fail("rows of a product are no multiple of 4 bytes; tile", a);
    if (tiles.rows[sums] != tiles.rows[a]) fail("the sums need as many rows as the left tile has; tile", sums);
    if (tiles.row_bytes[sums] != tiles.row_bytes[b]) fail("the sums need rows as long as the right tile's; tile", sums);
    if (tiles.rows[b] * 4 != tiles.row_bytes[a]) fail("the right tile needs a row for 4 bytes of the left; tile", b);
}

// Row m of `sums` += row m of a times b, whose row k holds columns 4 k to 4 k + 3 of its transpose side by side.
template <class Left, class Right>
void multiply_tiles(int sums, int a, int b) {
    check_product(sums, a, b);
    for (int m = 0; m < tiles.rows[a]; ++m) {
        uint32_t row[kMaxTileBytes / 4];
        std::memcpy(row, tiles.data[sums][m], sizeof row);
        for (int k = 0; k < tiles.rows[b]; ++k)
            for (int n = 0; n < tiles.row_bytes[b] / 4; ++n)
                for (int i = 0; i < 4; ++i)
                    row[n] += static_cast<uint32_t>(static_cast<Left>(tiles.data[a][m][4 * k + i]) *
                                                    static_cast<Right>(tiles.data[b][k][4 * n + i]));
        std::memcpy(tiles.data[sums][m], row, sizeof row);
    }
}

// Subnormal numbers are zeros, before and after an operation.
inline float without_subnormals(float value) {
    const uint32_t bits = as_bits(value);
    return (bits & 0x7F800000) ? value : as_float(bits & 0x80000000);
}

// The same of pairs of bfloat16: sums of the even and of the odd columns, fused, which are then added to each other and to
// what is there. Intel's Software Developer's Manual, TDPBF16PS.
inline void multiply_bfloat_tiles(int sums, int a, int b) {
    check_product(sums, a, b);
    const auto number = [](const uint8_t* pair, int i) {
        return without_subnormals(as_float(static_cast<uint32_t>(load<uint16_t>(pair + 2 * i)) << 16));
    };
    for (int m = 0; m < tiles.rows[a]; ++m) {
        for (int n = 0; n < tiles.row_bytes[b] / 4; ++n) {
            float halves[2] = {0.0f, 0.0f};
            for (int k = 0; k < tiles.rows[b]; ++k)
                for (int i = 0; i < 2; ++i)
                    halves[i] = without_subnormals(__builtin_fmaf(number(tiles.data[a][m] + 4 * k, i),
                                                                  number(tiles.data[b][k] + 4 * n, i), halves[i]));
            uint8_t* const sum = tiles.data[sums][m] + 4 * n;
            const float added = without_subnormals(halves[0] + halves[1]);
            const float total = without_subnormals(without_subnormals(load<float>(sum)) + added);
            std::memcpy(sum, &total, sizeof total);
        }
    }
}

}  // namespace emulated

// The configuration's 64 bytes: palette, start row, 14 zeros, 16 times two bytes of row length, 16 numbers of rows.
inline void _tile_loadconfig(const void* configuration) {
    using namespace emulated;
    const uint8_t* const bytes = static_cast<const uint8_t*>(configuration);
    if (bytes[0] != 1) fail("the tile configuration has a palette other than 1", bytes[0]);
    if (bytes[1] != 0) fail("the tile configuration starts at a row other than 0", bytes[1]);
    for (int i = 2; i < 16; ++i)
        if (bytes[i]) fail("the tile configuration has a reserved byte that is not zero; byte", i);
    tiles = {};
    for (int tile = 0; tile < 16; ++tile) {
        const int row_bytes = load<uint16_t>(bytes + 16 + 2 * tile), rows = bytes[48 + tile];
        if (tile >= kTiles && (rows || row_bytes)) fail("the tile configuration has more tiles than there are", tile);
        if (rows > kMaxTileRows) fail("the tile configuration has too many rows", rows);
        if (row_bytes > kMaxTileBytes) fail("the tile configuration has rows that are too long; bytes", row_bytes);
        if ((rows == 0) != (row_bytes == 0)) fail("the tile configuration has a tile of no rows or no bytes; tile", tile);
        if (tile >= kTiles) continue;
        tiles.rows[tile] = rows;
        tiles.row_bytes[tile] = row_bytes;
    }
    tiles.are_configured = true;
}
inline void _tile_release() { emulated::tiles = {}; }

inline void _tile_zero(int tile) {
    emulated::check_tile(tile);
    std::memset(emulated::tiles.data[tile], 0, sizeof emulated::tiles.data[tile]);
}
inline void _tile_loadd(int tile, const void* first_row, long stride) {
    _tile_zero(tile);
    for (int row = 0; row < emulated::tiles.rows[tile]; ++row)
        std::memcpy(emulated::tiles.data[tile][row], static_cast<const char*>(first_row) + row * stride,
                    emulated::tiles.row_bytes[tile]);
}
inline void _tile_stream_loadd(int tile, const void* first_row, long stride) { _tile_loadd(tile, first_row, stride); }
inline void _tile_stored(int tile, void* first_row, long stride) {
    emulated::check_tile(tile);
    for (int row = 0; row < emulated::tiles.rows[tile]; ++row)
        std::memcpy(static_cast<char*>(first_row) + row * stride, emulated::tiles.data[tile][row],
                    emulated::tiles.row_bytes[tile]);
}

inline void _tile_dpbssd(int sums, int a, int b) { emulated::multiply_tiles<int8_t, int8_t>(sums, a, b); }
inline void _tile_dpbsud(int sums, int a, int b) { emulated::multiply_tiles<int8_t, uint8_t>(sums, a, b); }
inline void _tile_dpbf16ps(int sums, int a, int b) { emulated::multiply_bfloat_tiles(sums, a, b); }
