#pragma dlc launch(good, threads = 64, blocks = N + 1, shared = 4 * D)
#pragma dlc launch(good)
#pragma dlc launch(half, threads = 128, elements = N, blocks = N)
#pragma dlc launch(named, thread = 128)
#pragma dlc launch(twice, threads = 1, threads = 2)
#pragma dlc lunch(good, threads = 1)
#pragma dlc launch
#pragma dlc launch(open, threads = (1)
#pragma dlc parallel(good)
#pragma once
#pragma dlcx launch
