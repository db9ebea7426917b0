"""What is the same in other letters, and the words that claim nothing. Equivalences only: no word implies another."""

from __future__ import annotations


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Spellings of units, the first is the key. A unit is read only behind a number.
_UNITS = """
mm millimeter millimeters millimetre millimetres 毫米
cm centimeter centimeters centimetre centimetres 厘米 公分
m meter meters metre metres 米
km kilometer kilometers kilometre kilometres 公里 千米
um micron microns μm 微米
inch in inches in. " ″ ” 英寸
ft foot feet ft. ' ′ 英尺
yard yd yards yds yd. 码
g gram grams gm gms gr 克
mg milligram milligrams 毫克
kg kilogram kilograms kilo kilos kgs 千克 公斤
lb lbs pound pounds lb. lbs. # 磅
oz ounce ounces oz. 盎司
ml milliliter milliliters millilitre millilitres mls cc 毫升
l liter liters litre litres ltr 升
gal gallon gallons gal. 加仑
pint pints pt
quart quarts qt
w watt watts 瓦
kw kilowatt kilowatts 千瓦
v volt volts 伏
a amp amps ampere amperes 安培
ma milliamp milliamps 毫安
mah 毫安时
hz hertz 赫兹
khz 千赫
mhz 兆赫
ghz
ohm ohms ω 欧姆
uf μf 微法
gb gigabyte gigabytes
mb megabyte megabytes
tb terabyte terabytes
mp megapixel megapixels
10kpx 万像素
px pixel pixels 像素
dpi
rpm r/min 转
psi
bar bars
pa 帕
kpa 千帕
mpa 兆帕
lumen lumens lm 流明
db decibel decibels 分贝
% percent pct
degree degrees deg ° 度
degc °c ℃ celsius 摄氏度
degf °f fahrenheit 华氏度
hour h hr hrs hours 小时 个小时
minute min mins minutes 分钟
second s sec secs seconds 秒
day days d 天
week weeks 周 星期
month months mo 个月
月 月份
year years yr yrs 年 周年
piece pieces pc pcs pcs. pc. 件
件套
片
块
pack packs pk pks
pair pairs prs 对 双
set sets 套 套装
sheet sheets 张
page pages 页
roll rolls 卷
box boxes 盒
bag bags 袋
sachet sachets
bottle bottles 瓶
tube tubes 支
tablet tablets
capsule capsules 粒
case cases
person people persons 人 位
layer layers 层
times 倍
gauge ga ga. awg
grit
mil mils
pin pins
port ports
count ct ct.
speed speeds 档
cup cups 杯
tray trays
stage stages
kind kinds sort sorts 种
item 个 只
strip 条
lot 款
"""
UNITS = {spelling: line.split()[0] for line in _UNITS.strip().splitlines() for spelling in line.split()}

_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety hundred"
NUMBER_WORDS: dict[str, float] = {word: number for number, word in enumerate(_NUMBERS.split())}
NUMBER_WORDS |= {word: 10.0 * tens for tens, word in enumerate(_TENS.split(), 3)}
NUMBER_WORDS |= {"half": 0.5, "dozen": 12.0, "thousand": 1000.0, "million": 1e6}
HAN_DIGITS = dict(zip("零〇一二两三四五六七八九半", (0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 0.5), strict=True))
HAN_POWERS = {"十": 10, "百": 100, "千": 1000, "万": 10_000}

# One word, other letters. The first is the key.
_SPELLINGS = """
color colour
gray grey
fiber fibre
aluminum aluminium
meter metre
liter litre
center centre
odor odour
odorless odourless
flavor flavour
mold mould
molded moulded
adapter adaptor
jewelry jewellery
sulfur sulphur
caliber calibre
tire tyre
cozy cosy
favorite favourite
stabilize stabilise
stabilized stabilised
sterilize sterilise
sterilized sterilised
organize organise
organized organised
organizer organiser
customize customise
customized customised
galvanize galvanise
galvanized galvanised
anodize anodise
anodized anodised
personalize personalise
personalized personalised
lightweight light-weight
stainless stainles
polyvinylchloride pvc
and &
with w/
diameter dia
approximate approx
maximum max
minimum min
temperature temp
"""
SPELLINGS = {other: line.split()[0] for line in _SPELLINGS.strip().splitlines() for other in line.split()}

# Words that claim nothing by themselves.
FUNCTION_EN = _listed(
    """
a an the this that these those it its itself they them their theirs he she his her hers we us our ours you your
yours i
me my mine one ones who whom whose which what where when while why how there here
and or but nor so yet if then than as because since although though unless until whether
of in on at by for from to into onto with within about over under between among through during after before above
below
up down out off around along across near per via upon toward towards against beside besides behind beyond inside
outside
is are was were be been being am has have had having do does did doing will would shall should can could may might
must
let lets get gets got
also too just very such some any each every both either all other another same own many much more most few several
even still again once only thus hence therefore however
etc e.g. i.e. eg ie s t re ve ll d x
"""
)
# What a sentence about a product is hung on; a claim only with what it stands with.
CARRIERS_EN = _listed(
    """
product item comes come include includes included feature features offer offers made make makes describe described
belong belongs called known carry carries say says state states give given
"""
)
FUNCTION_ZH = _listed(
    """
的 地 得 了 着 过 是 为 在 和 与 及 或 而 且 并 并且 以及 还 也 都 就 才 又 再 让 使 把 被 将 给 对 对于 从 到 于 以
由 向 往 跟 比 等
等等 这 那 这款 那款 此款 本款 该 该款 此 这个 那个 这些 那些 这种 这件 这条 本 其 它 它们 他 她 他们 我 我们 你 您
你们 您们 自己 之 所 者
吗 呢 吧 啊 呀 哦 哟 嘛 之间 之中 其中 中 里 上 下 内 来 去 起来 一 一个 一款 一种 一件 一条 一些 一份 个 款 种 件
条 只
如果 因为 所以 但 但是 不仅 不但 而且 同时 既 又 更 更加 很 也 还是 即 即可 可 可以 能 能够 会 要 有 具有 带有 拥有
配 采用 属于
如 如此 像 那么 这样 这么 时 时候 后 前 进行 通过 关于 根据 按 按照 每 各 某 另外 此外 以上 以下 本品 本产品 产品
商品 名为 称为 来自
作为 它的 其他 以 之后 之前 当 并非 均 分别
"""
)
# Before a material: what looks like it. Behind it: what has it on the outside alone.
IMITATIONS_EN = _listed("faux imitation artificial simulated synthetic fake mock pseudo")
COATINGS_EN = _listed("plated look looking effect style tone coloured colored imitation")
IMITATIONS_ZH = ("仿", "假", "人造", "类")
NEGATORS_EN = _listed(
    "not no non never without cannot neither nor none lacks lack excludes exclude except excluding hardly scarcely"
    " instead away"
)
NEGATORS_ZH = "不无没未非勿免"
# Han words with a negator inside that deny nothing.
HARMLESS_ZH = _listed(
    """
不锈钢 不错 不同 不仅 不但 不仅仅 不少 不断 不论 不管 不妨 无论 无比 无线 无限 非常 未来 免费 不一样 与众不同
不可思议 不由得 不禁 不失 不凡
不俗 不止 不只 无不 无疑 毫不 毫无疑问 忍不住 了不起 差不多 非凡 无敌 无穷 无尽 不已 不愧 不得不 不可或缺 必不可少
除非 不经意 不经意间 非洲
避免 难免 不免 无数 不规则 无袖 免烫 免洗 无缝 无纺布
"""
)
# Words before a number that change it.
QUALIFIERS = {
    "<=": (
        "up to", "no more than", "not more than", "at most", "maximum of", "max", "max.", "maximum",
        "最多", "最高", "最大", "不超过", "可达", "高达", "长达",
    ),
    ">=": (
        "at least", "more than", "over", "not less than", "no less than", "minimum of", "min", "min.", "minimum",
        "above", "至少", "超过", "不少于", "最低", "最小",
    ),
    "<": ("less than", "under", "below", "fewer than", "少于", "低于", "不到", "小于"),
    "-": ("minus", "零下", "负"),
    "~": (
        "about", "approximately", "approx", "approx.", "around", "nearly", "almost", "roughly",
        "大约", "约", "近", "将近", "约为",
    ),
}  # fmt: skip

# Names of slots: a word of a text that names the slot of a value beside it.
LABELS = {
    "brand": "brand brands make 品牌 牌子",
    "category": "category categories type kind department section group 类别 类目 分类 类型 品类",
    "colour": "color colors 颜色 色 色彩 配色 颜色分类",
    "material": "material materials made fabric 材质 材料 面料 用料 质地",
    "size": "size sizes dimension dimensions measure measures 尺寸 尺码 规格 大小",
    "model": "model models number part no code reference 型号 货号 编号",
    "quantity": "quantity pack number 数量 件数 包装",
    "style": "style 风格 款式 样式 图案 版型",
    "audience": "for audience 适用人群 人群 适合",
}
SLOT_OF_LABEL = {word: slot for slot, words in LABELS.items() for word in words.split()}
# Names of what is measured: two numbers under the same one contradict each other.
MEASURED = _listed(
    """
length width height depth diameter thickness weight capacity volume voltage current power wattage resolution storage
memory size range distance speed pressure temperature warranty
长度 宽度 高度 深度 直径 厚度 重量 净重 毛重 容量 电压 电流 功率 像素 存储容量 尺寸 续航 播放时间 温度 质保 克重
净含量
"""
)

COLOURS = _listed(
    """
black white red blue green yellow orange purple pink brown gray silver gold golden navy beige ivory turquoise teal
maroon bronze copper coral plum sand violet magenta cyan khaki lavender burgundy charcoal cream tan clear transparent
multicolor amber crimson indigo olive rose lilac mint
黑色 白色 红色 蓝色 绿色 黄色 橙色 紫色 粉色 粉红色 棕色 灰色 银色 金色 藏青色 藏蓝色 米色 米白色 墨绿色 珊瑚色
银灰色 沙色 紫红色 咖啡色 卡其色
酒红色 驼色 杏色 藏青 浅蓝色 深蓝色 天蓝色 浅灰色 深灰色 军绿色 玫红色 焦糖色 裸色 姜黄色 透明 透明色 彩色 纯色 黑白
宝蓝色 湖蓝色 浅色 深色 香槟色
"""
)
MATERIALS = _listed(
    """
cotton wool silk linen leather suede denim polyester nylon spandex elastane acrylic rayon viscose velvet canvas felt
fleece cashmere bamboo wood wooden oak pine walnut plywood metal steel stainless iron aluminum brass copper bronze
titanium zinc chrome nickel tin gold silver alloy carbon glass crystal borosilicate ceramic porcelain stone marble
granite
concrete plastic rubber silicone latex vinyl pvc polyvinylchloride polyethylene polypropylene polycarbonate
polyurethane
polystyrene abs ptfe teflon nitrile neoprene eva ldpe hdpe foam foil paper cardboard paperboard cork wax resin epoxy
fiberglass graphite tungsten carbide quartz tempered mesh microfiber polymer delrin acetal kraft
棉 纯棉 全棉 亚麻 麻 苎麻 羊毛 真丝 桑蚕丝 丝绸 蚕丝 羊绒 牛皮 真皮 皮革 羊皮 涤纶 聚酯纤维 锦纶 尼龙 氨纶 腈纶 粘胶
天丝 莫代尔 雪纺 蕾丝
丝绒 天鹅绒 灯芯绒 牛仔布 牛仔 羽绒 鸭绒 鹅绒 针织 网纱 欧根纱 混纺 不锈钢 铝合金 合金 铸铁 铁 钢 铜 黄铜 木 实木 竹
竹纤维 玻璃 陶瓷 骨瓷
硅胶 橡胶 乳胶 塑料 树脂 碳纤维 钛 石英 帆布 毛呢 呢料 毛绒 绒 缎面 皮 pu 聚丙烯 聚乙烯 高硼硅
"""
)
AUDIENCES = _listed(
    """
men women man woman kids kid children child baby babies infant toddler boys girls adults adult teens unisex seniors
students beginner beginners professional professionals
男士 女士 男 女 儿童 宝宝 婴儿 老人 学生 孕妇 成人 青少年 男童 女童 情侣 新手
"""
)
