// SPDX-License-Identifier: Apache-2.0
// A text of many kinds, written for this purpose: what popular experts are popular with should not
// be one subject's.
#include "profile_text.h"

namespace hotset {
namespace {

constexpr std::string_view kSample =
    R"text(The ferry to the outer islands leaves at half past six, before the fish market opens.
In winter it carries mail, two or three schoolteachers and whatever the shop on the
largest island has run out of; in summer one has to stand. Halfway across, the engine
is turned down, not for the view, though people think so and reach for their cameras,
but because the current over the sandbank is faster than the boat likes. The captain
has explained this for thirty years. Nobody has ever put a camera away.

A heat pump moves more energy than it uses because it does not make heat, it carries it. A fluid
evaporates at low pressure outside, where even cold air is warm enough to boil it, is compressed,
and gives the heat away when it condenses inside. The smaller the step between the two
temperatures, the less work the compressor has to do: with underfloor heating at 35 °C one
kilowatt hour of electricity brings about four of heat, with old radiators at 60 °C hardly two and
a half.

Q: I have a fever of 38.4 and a sore throat since yesterday. Should I see a doctor?
A: A fever of that height with a sore throat is most often a viral infection that ends by itself
within a week. Rest, drink enough, and take something against the fever if it keeps you from
sleeping. See a doctor soon if you have trouble breathing or swallowing, if the fever lasts longer
than three days, or if you have a weak immune system.

Q: What is the difference between a list and a tuple in Python?
A: Both hold items in order. A list can be changed after it was made, a tuple can't. That is why
tuples can be keys of a dictionary and lists can't.

```python
from collections import Counter

def most_common_words(path, count=10):
    """The words of a file that occur most often, with how often they do."""
    counter = Counter()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            counter.update(word.strip(".,;:!?\"'").lower() for word in line.split())
    counter.pop("", None)
    return counter.most_common(count)

if __name__ == "__main__":
    for word, times in most_common_words("novel.txt"):
        print(f"{word:>12} {times}")
```

```c
/* Binary search: the index of the first element that is not less than key. */
size_t lower_bound(const int *values, size_t count, int key) {
  size_t begin = 0;
  while (count > 0) {
    size_t half = count / 2;
    if (values[begin + half] < key) {
      begin += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return begin;
}
```

```sql
SELECT c.name, COUNT(*) AS orders, SUM(o.total) AS spent
FROM customers AS c JOIN orders AS o ON o.customer_id = c.id
WHERE o.placed_at >= DATE '2024-01-01'
GROUP BY c.name HAVING SUM(o.total) > 1000 ORDER BY spent DESC LIMIT 20;
```

{"id": 4711, "status": "shipped", "items": [{"sku": "A-103", "quantity": 2, "price": 19.9},
 {"sku": "C-220", "quantity": 1, "price": 149.0}], "address": {"city": "Gdansk", "country": "PL"}}

Solve 3x + 7 = 2(x + 9). Expanding the right side gives 3x + 7 = 2x + 18, so x = 11. Check: 3 · 11
+ 7 = 40 and 2 · (11 + 9) = 40. The sum of the first n odd numbers is n²: each square grows into
the next by a border of 2n + 1. If f(x) = x³ − 4x, then f'(x) = 3x² − 4, which is zero at x =
±2/√3; f has its local maximum on the left and its local minimum on the right. 17 × 23 = 391, 144
/ 9 = 16, 2^10 = 1024.

Der Zug nach Salzburg hat heute zwanzig Minuten Verspätung, weil bei Rosenheim ein Baum auf den
Gleisen liegt. Wer umsteigen muss, soll sich beim Personal melden; der Anschluss nach Graz wartet
vermutlich nicht. Im Speisewagen gibt es Suppe, Brot und, wie immer, keinen Kaffee mehr.

La bibliothèque ferme à dix-huit heures, sauf le jeudi. Les livres empruntés peuvent être gardés
trois semaines ; au-delà, on paie dix centimes par jour et par volume. Ma grand-mère disait que
c'était le prix d'un bon chapitre.

El mercado empieza temprano. A las siete ya no quedan higos, a las ocho se acaban las aceitunas, y
a las nueve los vendedores hablan más entre ellos que con los clientes. Si quieres buen pescado,
pregunta primero de qué barco viene.

春天来得很慢。河边的柳树先绿了，然后是山脚下的杏花。老人们搬出椅子，坐在门口晒太阳，谈今年的雨水和去年的收成。
孩子们放学以后跑到田里去放风筝，风筝飞得比屋顶还高。

駅前の小さな喫茶店は、朝七時に開きます。常連の客は新聞を読みながら、同じ席で同じコーヒーを飲みます。

Утром выпал снег, и город стал тихим. Дворники работали с шести часов, но к полудню дорожки снова
замело.

Recipe for four: boil 400 g of pasta in salted water. Meanwhile fry two cloves of garlic in olive
oil, add a tin of tomatoes, a pinch of sugar, salt and pepper, and let it simmer for ten minutes.
Tear basil over it and serve with grated cheese.

Dear Ms. Okafor, thank you for your letter of 3 March. We regret that the delivery arrived
incomplete. The two missing chairs left our warehouse this morning and should reach you by Friday;
a credit note of 45.00 is enclosed. Please keep the damaged table until our driver collects it.
Yours sincerely, H. Lindqvist

| city | inhabitants | altitude, m | founded |
| --- | ---: | ---: | ---: |
| Quito | 1,763,000 | 2,850 | 1534 |
| Bern | 134,000 | 540 | 1191 |
| Kathmandu | 845,000 | 1,400 | 723 |

<html><head><title>Opening hours</title></head><body>
<h1>Opening hours</h1><ul><li>Monday to Friday: 9–18</li>
<li>Saturday: 10–14</li></ul><p class="note">Closed on public holidays.</p></body></html>

"You said the bridge was open." "I said it had been open." "When?" "When I said it." She looked at
the river, which had no opinion, and turned the car around. It was the third time that day, and
the last one, as it turned out, that anyone would cross the valley by road before the spring.

In law, a contract needs an offer and its acceptance. An advertisement is usually neither: it
invites offers. Whoever puts goods on a shelf has not yet promised to sell them at the price on
the label, though in many countries a price that misleads on purpose is forbidden by other rules.
Limitation, the time after which a claim can no longer be enforced, begins at the end of the year
in which the creditor learns of it.

$ git log --oneline -3
a91c0de Parser: an empty array is no error
77b1f02 Tests for nested quotes
5c0ffee First version
$ grep -rn "timeout" src | head -2
src/net.c:118:  int timeout_ms = 2000;
src/main.c:42:    {"timeout", required_argument, NULL, 't'},

The Treaty of Westphalia of 1648 ended the Thirty Years' War and is often called the birth of the
modern state system, which gives it too much credit and the thousands of small princes too little.
Photosynthesis splits water and keeps the hydrogen; the oxygen we breathe is what is thrown away.
A haiku has seventeen syllables:

    old pond in the rain
    each drop writes a ring, and then
    the page is empty
)text";

}  // namespace

std::string_view profile_sample() {
  return kSample;
}

}  // namespace hotset
