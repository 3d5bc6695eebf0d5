/*===- submit.c - calls in two halves, by chance -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * submit cpu|cuda SEED COUNT FOLDER, for COUNT seeds: two instances of the model of submit.dl do the same. One is called and waits each time; at the other, what is submitted, called and
 * collected, and in which order, is drawn by chance. Losses and variables must be the same bits. Some labels are wrong: what stands behind such a step is not run.
 */
#include "submit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 9, ROUNDS = 80 };

static uint64_t seed;
static float x[ROWS * 12];
static int32_t label[ROWS];
static int64_t n;
static int round_number;

static void fail(const char *what, const char *words) {
  fprintf(stderr, "seed %d, round %d: %s: %s\n", (int)seed, round_number, what, words);
  exit(1);
}
static void check(dlrt_status status) {
  if (status)
    fail("failed", submit_status_message(status));
}
/* Which is a fault, and says so. */
static void check_fault(dlrt_status status, const char *words) {
  if (submit_status_code(status) != DLRT_FAULT)
    fail("no fault", submit_status_message(status));
  if (!strstr(submit_status_message(status), words))
    fail("another fault", submit_status_message(status));
  submit_status_release(status);
}
static void check_same(const void *a, const void *b, size_t bytes, const char *what) {
  if (memcmp(a, b, bytes) != 0)
    fail(what, "differs from the one of a call that waits");
}

static uint64_t state;
static unsigned draw(unsigned below) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(state >> 33) % below;
}
static void make_batch(int is_good) {
  int i;
  n = 1 + draw(ROWS);
  for (i = 0; i < n * 12; ++i)
    x[i] = (float)draw(2001) / 1000 - 1;
  for (i = 0; i < n; ++i)
    label[i] = (int32_t)draw(4);
  if (!is_good)
    label[draw((unsigned)n)] = 77;
}

typedef struct ticket {
  uint64_t number;
  const char *fault; /* what its collector is told, or: */
  float loss;
} ticket;
static ticket tickets[2];
static int count;

static int is_blocked(void) {
  int i;
  for (i = 0; i < count; ++i)
    if (tickets[i].fault)
      return 1;
  return 0;
}

static void collect(submit_instance *instance, int which) {
  ticket t = tickets[which];
  float loss = -1;
  dlrt_status status = submit_step_collect(instance, t.number, &loss);
  if (t.fault)
    check_fault(status, t.fault);
  else {
    check(status);
    check_same(&loss, &t.loss, sizeof loss, "a loss");
  }
  tickets[which] = tickets[--count];
}

/* Calls and submits by chance. */
static void run(submit_instance *waiting, submit_instance *instance) {
  static const char wrong[] = "label 77", behind[] = "'step' was not run, as a call before it failed: ";
  check(submit_initialize(waiting, seed));
  check(submit_initialize(instance, seed));
  state = seed;
  for (round_number = 0; round_number < ROUNDS; ++round_number) {
    int is_good = draw(12) != 0;
    float losses[2] = {0, 1}, scores[2][ROWS * 4];
    make_batch(is_good);
    switch (draw(8)) {
    case 0:
    case 1:
    case 2: {
      ticket t = {0, NULL, 0};
      if (count == 2)
        break;
      if (is_blocked())
        t.fault = behind;
      else if (is_good)
        check(submit_step(waiting, n, x, label, &t.loss));
      else {
        check_fault(submit_step(waiting, n, x, label, &t.loss), wrong);
        t.fault = wrong;
      }
      check(submit_step_submit(instance, n, x, label, &t.number));
      memset(x, 0xff, sizeof x); /* its memory is ours again */
      memset(label, 0xff, sizeof label);
      tickets[count++] = t;
      break;
    }
    case 3:
    case 4:
      if (count)
        collect(instance, (int)draw((unsigned)count));
      break;
    case 5: /* a call that waits */
      if (is_blocked())
        check_fault(submit_step(instance, n, x, label, &losses[0]), behind);
      else if (is_good) {
        check(submit_step(waiting, n, x, label, &losses[0]));
        check(submit_step(instance, n, x, label, &losses[1]));
        check_same(&losses[0], &losses[1], sizeof(float), "a loss");
      } else
        check_fault(submit_step(instance, n, x, label, &losses[0]), wrong);
      break;
    case 6: /* one that does not; behind a failed call it is not run, whether that is known already or not */
      if (is_blocked())
        submit_status_release(submit_step(instance, n, x, label, NULL));
      else if (is_good) {
        check(submit_step(waiting, n, x, label, NULL));
        check(submit_step(instance, n, x, label, NULL));
      }
      break;
    case 7:
      if (is_blocked())
        break;
      check(submit_scores(waiting, n, x, scores[0]));
      check(submit_scores(instance, n, x, scores[1]));
      check_same(scores[0], scores[1], (size_t)n * 4 * sizeof(float), "scores");
      break;
    }
  }
  while (count)
    collect(instance, 0);
}

/* All variables, as a checkpoint has them. */
static void compare(submit_instance *waiting, submit_instance *instance, const char *folder) {
  char paths[2][512], *contents[2];
  long bytes[2];
  int i;
  for (i = 0; i < 2; ++i) {
    FILE *file;
    snprintf(paths[i], sizeof paths[i], "%s/%d.safetensors", folder, i);
    check(submit_save(i ? waiting : instance, paths[i]));
    file = fopen(paths[i], "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
      fail("cannot read", paths[i]);
    bytes[i] = ftell(file);
    rewind(file);
    contents[i] = (char *)malloc((size_t)bytes[i]);
    if (!contents[i] || fread(contents[i], 1, (size_t)bytes[i], file) != (size_t)bytes[i])
      fail("cannot read", paths[i]);
    fclose(file);
  }
  if (bytes[0] != bytes[1])
    fail("checkpoints", "differ in size");
  check_same(contents[0], contents[1], (size_t)bytes[0], "a checkpoint");
  free(contents[0]);
  free(contents[1]);
}

int main(int argument_count, char **arguments) {
  dlrt_options options = {sizeof(dlrt_options), 0, 0, 0, DLRT_DEVICE_CPU, 0};
  submit_instance *waiting, *instance;
  uint64_t end;
  if (argument_count != 5)
    return 2;
  options.device = strcmp(arguments[1], "cuda") == 0 ? DLRT_DEVICE_CUDA : DLRT_DEVICE_CPU;
  seed = strtoull(arguments[2], NULL, 10);
  check(submit_create(&options, &waiting));
  check(submit_create(&options, &instance));
  for (end = seed + strtoull(arguments[3], NULL, 10); seed < end; ++seed) {
    run(waiting, instance);
    compare(waiting, instance, arguments[4]);
  }
  submit_release(waiting);
  submit_release(instance);
  printf("same bits\n");
  return 0;
}
