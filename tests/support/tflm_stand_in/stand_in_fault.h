// What a test's copy of the tree makes Invoke() do: 0 nothing, 1 a bad access, 2 no end, 3 wrong outputs, 4 a deep stack,
// 5 an error.
#pragma once
#define STAND_IN_FAULT 0
