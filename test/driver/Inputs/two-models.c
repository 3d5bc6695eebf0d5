/* Trains two models of one program for some steps; C11 and C++17. */
#include "mlp.h"
#include "two_layer.h"
#include <stdio.h>
#include <stdlib.h>

static void must(dlrt_status status, const char *message) {
  if (status) {
    fprintf(stderr, "%s\n", message);
    exit(1);
  }
}
#define TWO_LAYER(call)                                                                                                \
  do {                                                                                                                 \
    dlrt_status status = (call);                                                                                       \
    must(status, two_layer_status_message(status));                                                                    \
  } while (0)
#define MLP(call)                                                                                                      \
  do {                                                                                                                 \
    dlrt_status status = (call);                                                                                       \
    must(status, mlp_status_message(status));                                                                          \
  } while (0)

static float x[64 * 1000], y[64 * 10], images[5 * 784], probability[5 * 10];

int main(void) {
  dlrt_options options = {sizeof(dlrt_options), 1, 7, 0, DLRT_DEVICE_AUTO, 0};
  two_layer_instance *first = 0;
  mlp_instance *second = 0;
  const int32_t label[5] = {1, 2, 3, 4, 5}, wrong[5] = {1, 2, 3, 4, 10};
  float loss = 0, before = 0, sum = 0, losses[2] = {0, 0};
  uint64_t tickets[2] = {0, 0};
  dlrt_status status;
  int i;
  for (i = 0; i < 64 * 1000; ++i)
    x[i] = (float)(i * 37 % 101) / 101.0f - 0.5f;
  for (i = 0; i < 64 * 10; ++i)
    y[i] = (float)(i * 13 % 17) / 17.0f;
  for (i = 0; i < 5 * 784; ++i)
    images[i] = (float)(i * 29 % 255) / 255.0f;

  TWO_LAYER(two_layer_create(&options, &first));
  MLP(mlp_create(&options, &second));
  TWO_LAYER(two_layer_loss(first, x, y, &before));
  for (i = 0; i < 20; ++i)
    TWO_LAYER(two_layer_step(first, x, y, NULL));
  TWO_LAYER(two_layer_loss(first, x, y, &loss));
  if (!(loss < before)) {
    fprintf(stderr, "two_layer: loss %g after %g\n", (double)loss, (double)before);
    return 1;
  }

  MLP(mlp_loss(second, 5, images, label, &before));
  for (i = 0; i < 20; ++i)
    MLP(mlp_step(second, 5, images, label, NULL));
  MLP(mlp_loss(second, 5, images, label, &loss));
  MLP(mlp_predict(second, 5, images, probability));
  for (i = 0; i < 10; ++i)
    sum += probability[i];
  if (!(loss < before) || !(sum > 0.999f && sum < 1.001f)) {
    fprintf(stderr, "mlp: loss %g after %g, probabilities add up to %g\n", (double)loss, (double)before, (double)sum);
    return 1;
  }
  /* Two steps in two halves, and between these a call of another function. */
  MLP(mlp_step_submit(second, 5, images, label, &tickets[0]));
  MLP(mlp_step_submit(second, 5, images, label, &tickets[1]));
  MLP(mlp_predict(second, 5, images, NULL));
  MLP(mlp_step_collect(second, tickets[1], &losses[1]));
  MLP(mlp_step_collect(second, tickets[0], &losses[0]));
  TWO_LAYER(two_layer_step_submit(first, x, y, &tickets[0]));
  TWO_LAYER(two_layer_step_collect(first, tickets[0], NULL));
  if (!(losses[0] > 0 && losses[0] < before && losses[1] > 0 && losses[1] < before)) {
    fprintf(stderr, "mlp: losses %g and %g after %g\n", (double)losses[0], (double)losses[1], (double)before);
    return 1;
  }
  MLP(mlp_step_submit(second, 5, images, wrong, &tickets[0]));
  status = mlp_step_collect(second, tickets[0], &loss);
  if (mlp_status_code(status) != DLRT_FAULT) {
    fprintf(stderr, "mlp: label 10 of 10 classes gives code %d when it is collected\n", (int)mlp_status_code(status));
    return 1;
  }
  mlp_status_release(status);
  status = mlp_step(second, 5, images, wrong, NULL);
  if (mlp_status_code(status) != DLRT_FAULT) {
    fprintf(stderr, "mlp: label 10 of 10 classes gives code %d\n", (int)mlp_status_code(status));
    return 1;
  }
  mlp_status_release(status);
  two_layer_release(first);
  mlp_release(second);
  return 0;
}
