/* Two models whose functions in C++ have the same names; one's give twice the other's. */
#include "ops.h"
#include "twin.h"
#include <stdio.h>

int main(void) {
  ops_instance *a;
  twin_instance *b;
  float x[48], one, two;
  int i;
  for (i = 0; i < 48; ++i)
    x[i] = 1;
  if (ops_create(NULL, &a) || twin_create(NULL, &b) || ops_closed(a, x, &one) || twin_closed(b, x, &two))
    return 1;
  printf("%.2f %.2f\n", (double)one, (double)two);
  ops_release(a);
  twin_release(b);
  return 0;
}
