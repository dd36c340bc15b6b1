#include "csystem.h"

// One copy in each library or program that links this module; initial-exec, so that reading it calls nothing.
__thread uint32_t dashfs_thread_hint_word __attribute__((tls_model("initial-exec"), visibility("hidden")));
__thread const uint32_t *dashfs_cancellation;
uint8_t dashfs_cancels_anywhere;
