/* Trains two_layer one step ahead: the next step is sent off before the loss of this one is waited for. On a GPU its data are copied meanwhile.
 *   dlc examples/two_layer.dl --target=cpu,cuda -o two_layer.a --header=two_layer.h
 *   cc -I. examples/ahead.c two_layer.a -lm -pthread -o ahead && ./ahead */
#include "two_layer.h"
#include <stdio.h>
#include <stdlib.h>

static float x[64 * 1000], y[64 * 10];

static void check(dlrt_status status) {
  if (status) {
    fprintf(stderr, "ahead: %s\n", two_layer_status_message(status));
    two_layer_status_release(status);
    exit(1);
  }
}

/* A batch made of a number, in memory that the last one had. */
static void make_batch(int number) {
  int i;
  for (i = 0; i < 64 * 1000; ++i)
    x[i] = (float)((i + number % 4) * 37 % 101) / 101 - 0.5f;
  for (i = 0; i < 64 * 10; ++i)
    y[i] = (float)(i * 13 % 17) / 17;
}

int main(void) {
  two_layer_instance *model;
  uint64_t ticket = 0, next = 0;
  float loss;
  int step;
  check(two_layer_create(NULL, &model));
  for (step = 0; step <= 200; ++step) {
    if (step < 200) {
      make_batch(step);
      check(two_layer_step_submit(model, x, y, &next)); /* x and y may change from here on */
    }
    if (step > 0) {
      check(two_layer_step_collect(model, ticket, &loss)); /* waits for the step before */
      if (step % 50 == 0)
        printf("step %3d  loss %.2f\n", step, (double)loss);
    }
    ticket = next;
  }
  two_layer_release(model);
  return 0;
}
