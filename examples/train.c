/* Trains two_layer on numbers made here and predicts. From the root of the repository:
 *   dlc examples/two_layer.dl -o two_layer.a --header=two_layer.h
 *   cc -I. examples/train.c two_layer.a -lm -pthread -o train && ./train */
#include "two_layer.h"
#include <stdio.h>
#include <stdlib.h>

static float x[64 * 1000], y[64 * 10], prediction[64 * 10];

static void check(dlrt_status status) { /* NULL is success; a failed call has changed nothing */
  if (status) {
    fprintf(stderr, "train: %s\n", two_layer_status_message(status));
    two_layer_status_release(status);
    exit(1);
  }
}

int main(void) {
  two_layer_instance *model;
  float loss;
  int i;
  for (i = 0; i < 64 * 1000; ++i)
    x[i] = (float)(i * 37 % 101) / 101 - 0.5f;
  for (i = 0; i < 64 * 10; ++i)
    y[i] = (float)(i * 13 % 17) / 17;

  check(two_layer_create(NULL, &model)); /* every variable has its initial value */
  for (i = 0; i <= 200; ++i) {
    check(two_layer_step(model, x, y, &loss));
    if (i % 50 == 0)
      printf("step %3d  loss %.2f\n", i, (double)loss);
  }
  check(two_layer_predict(model, x, prediction));
  printf("predicted %.2f, wanted %.2f\n", (double)prediction[9], (double)y[9]);
  check(two_layer_save(model, "two_layer.safetensors"));
  two_layer_release(model);
  return 0;
}
