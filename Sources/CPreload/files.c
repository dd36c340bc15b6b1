#include "cpreload.h"

struct dashfs_thread_place dashfs_thread_places[DASHFS_THREAD_BLOCKS];
uint32_t dashfs_entries[DASHFS_DESCRIPTOR_LIMIT + 1];
struct dashfs_description dashfs_descriptions[DASHFS_DESCRIPTION_LIMIT];
struct dashfs_map dashfs_maps[DASHFS_MAP_LIMIT];
uint8_t dashfs_prefix_bytes[DASHFS_TEXT_CAPACITY];
uint8_t dashfs_socket_bytes[DASHFS_TEXT_CAPACITY];
uint8_t dashfs_directory_bytes[DASHFS_TEXT_CAPACITY];
uint8_t dashfs_program_bytes[2 * DASHFS_TEXT_CAPACITY];
uint8_t dashfs_preload_bytes[DASHFS_TEXT_CAPACITY];
uint8_t dashfs_settings_bytes[DASHFS_SETTINGS_BYTES];
uint32_t dashfs_scratch_words[DASHFS_SCRATCH_BLOCKS];
uint8_t dashfs_scratch[DASHFS_SCRATCH_BLOCKS][DASHFS_SCRATCH_BYTES] __attribute__((aligned(4096)));
__thread struct dashfs_thread_block *dashfs_own_block __attribute__((tls_model("initial-exec"), visibility("hidden")));
__thread struct dashfs_thread_block *dashfs_lent_block __attribute__((tls_model("initial-exec"), visibility("hidden")));
