"""Five short texts on which tokenizers are compared: news, Korean, code, mathematics and science.

All of them were written for this project.
"""

from __future__ import annotations

NEWS = """\
RIVERTON, 3 March. The city council voted 7-4 on Tuesday night to reopen the old ferry line across the estuary, twelve years
after the last boat was withdrawn. The first two vessels, both electric, are to enter service in April 2027 and will carry up
to 180 passengers and 40 bicycles each. "People have been asking for this since the day it stopped," said Councillor Maria
Okonkwo, who led the campaign. "It is eleven minutes by water and, on a bad morning, fifty by road."

The line will cost $23.6 million to build and about $2.1 million a year to run, a third of which the city hopes to recover
from fares. Opponents called the figures optimistic. Daniel Hirsch, who represents the eastern wards, pointed out that a 2019
study had put the running costs at nearly twice as much. "We're buying a lovely view," he said, "and calling it transport."

Work on the two landing stages begins in the autumn, once the seabirds that nest under the northern pier have left. The port
authority expects some delays for fishing boats in October and November and has promised to pay for moorings elsewhere.
"""

KOREAN = """\
작은 언어 모델을 처음부터 만들어 보면 많은 것을 배울 수 있다. 먼저 글을 모으고, 그 글을 조각으로 나누는 방법을 정한다.
그다음에는 모델이 앞의 조각들을 보고 다음 조각을 맞히도록 훈련한다. 처음에는 아무 말이나 하지만, 시간이 지나면 문장이
조금씩 자연스러워진다. 마지막으로 질문과 대답을 보여 주면 모델은 사람과 대화하는 법을 배운다. 물론 작은 모델은 자주
틀린다. 그래서 대답을 그대로 믿지 말고 꼭 확인해야 한다. 그래도 자기 컴퓨터에서 만든 모델이 처음으로 이름을 말할 때는
무척 기쁘다. 오늘은 2026년 3월 3일, 날씨는 맑고 기온은 12도이다.
"""

CODE = """\
from __future__ import annotations

import heapq
from collections.abc import Iterable


class Graph:
    \"\"\"Directed edges with non-negative lengths.\"\"\"

    def __init__(self, edges: Iterable[tuple[str, str, float]]):
        self.neighbours: dict[str, list[tuple[str, float]]] = {}
        for start, end, length in edges:
            if length < 0:
                raise ValueError(f"edge {start}->{end} has length {length}, which is negative")
            self.neighbours.setdefault(start, []).append((end, length))

    def distances(self, source: str) -> dict[str, float]:
        done: dict[str, float] = {}
        queue = [(0.0, source)]
        while queue:
            distance, node = heapq.heappop(queue)
            if node in done:
                continue
            done[node] = distance
            for other, length in self.neighbours.get(node, ()):
                if other not in done:
                    heapq.heappush(queue, (distance + length, other))
        return done


if __name__ == "__main__":
    graph = Graph([("a", "b", 2.5), ("b", "c", 1.0), ("a", "c", 4.75)])
    assert graph.distances("a") == {"a": 0.0, "b": 2.5, "c": 3.5}
"""

MATHS = r"""
\begin{theorem}
Let $f\colon [a,b] \to \mathbb{R}$ be continuous and let $F(x) = \int_a^x f(t)\,dt$. Then $F$ is differentiable on $(a,b)$ and
$F'(x) = f(x)$ for every $x \in (a,b)$.
\end{theorem}
\begin{proof}
Fix $x \in (a,b)$ and $\varepsilon > 0$. Since $f$ is continuous at $x$ there is $\delta > 0$ with
$|f(t) - f(x)| < \varepsilon$ whenever $|t - x| < \delta$. For $0 < |h| < \delta$ we obtain
\[
  \left| \frac{F(x+h) - F(x)}{h} - f(x) \right|
  = \left| \frac{1}{h} \int_x^{x+h} \bigl( f(t) - f(x) \bigr)\,dt \right|
  \le \frac{1}{|h|} \cdot |h| \cdot \varepsilon = \varepsilon .
\]
As $\varepsilon$ was arbitrary, $\lim_{h \to 0} \frac{F(x+h) - F(x)}{h} = f(x)$.
\end{proof}
For example, with $f(t) = 3t^2 - 4t + 1$ and $a = 0$ one finds $F(x) = x^3 - 2x^2 + x$, so that
$\int_0^2 f(t)\,dt = F(2) - F(0) = 8 - 8 + 2 = 2$, and $\sum_{k=1}^{n} k^2 = \frac{n(n+1)(2n+1)}{6}$.
"""

SCIENCE = """\
Photosynthesis couples the absorption of light to the synthesis of carbohydrates. In the thylakoid membrane, photosystem II
oxidises water and passes electrons through plastoquinone and the cytochrome b6f complex to photosystem I, where a second
photon raises them to the potential needed to reduce NADP+. The accompanying translocation of protons builds an
electrochemical gradient that drives ATP synthase. In the stroma, ribulose-1,5-bisphosphate carboxylase/oxygenase (RuBisCO)
fixes carbon dioxide at a rate of only 3-10 turnovers per second, and in roughly a quarter of its catalytic cycles it binds
oxygen instead, which initiates photorespiration. C4 plants suppress this side reaction by concentrating CO2 in bundle-sheath
cells, at a cost of two additional ATP equivalents for each molecule fixed; the advantage grows with temperature, because the
specificity of RuBisCO for CO2 declines as the leaf warms.
"""

PASSAGES: dict[str, str] = {"news": NEWS, "korean": KOREAN, "code": CODE, "maths": MATHS, "science": SCIENCE}
